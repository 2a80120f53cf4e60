package nstest

import (
	"fmt"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpfLoad is the part of union bpf_attr for BPF_PROG_LOAD, up to prog_flags
// (linux/bpf.h).
type bpfLoad struct {
	_           structs.HostLayout
	progType    uint32
	insnCount   uint32
	insns       uint64
	license     uint64
	logLevel    uint32
	logSize     uint32
	logBuf      uint64
	kernVersion uint32
	progFlags   uint32
}

const (
	bpfLoadSize = 48
	_           = uint(bpfLoadSize - unsafe.Sizeof(bpfLoad{}))
	_           = uint(unsafe.Sizeof(bpfLoad{}) - bpfLoadSize)
)

// The kernel reads these through addresses in bpfLoad: package variables do
// not move.
var (
	bpfReturnZero = [2][8]byte{{unix.BPF_ALU64 | unix.BPF_MOV}, {unix.BPF_JMP | unix.BPF_EXIT}}
	bpfLicense    = [4]byte{'G', 'P', 'L', 0}
)

// checkBPF loads "return 0" as a syscall program, Linux 5.14. The kernel wants
// such programs sleepable (kernel/bpf/verifier.c).
func checkBPF() error {
	attr := bpfLoad{
		progType:  unix.BPF_PROG_TYPE_SYSCALL,
		insnCount: uint32(len(bpfReturnZero)),
		insns:     uint64(uintptr(unsafe.Pointer(&bpfReturnZero))),
		license:   uint64(uintptr(unsafe.Pointer(&bpfLicense))),
		progFlags: unix.BPF_F_SLEEPABLE,
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), bpfLoadSize)
	if errno != 0 {
		return fmt.Errorf("bpf BPF_PROG_LOAD of a syscall program: %w", errno)
	}
	return unix.Close(int(fd))
}
