package walk

import (
	"fmt"
	"os"
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runAttr is the part of union bpf_attr for BPF_PROG_TEST_RUN, up to ctx_out
// (include/uapi/linux/bpf.h).
type runAttr struct {
	_                          structs.HostLayout
	progFD, retval             uint32
	dataSizeIn, dataSizeOut    uint32
	dataIn, dataOut            uint64
	repeat, duration           uint32
	contextSizeIn, contextSize uint32
	contextIn, contextOut      uint64
}

var _ [64]byte = [unsafe.Sizeof(runAttr{})]byte{}

// testRun runs a program of type syscall once, on the calling thread. The kernel
// copies the context in, and back when the program has ended (net/bpf/test_run.c,
// bpf_prog_test_run_syscall).
func testRun(prog int, context *uint32) error {
	attr := runAttr{
		progFD:        uint32(prog),
		contextSizeIn: uint32(unsafe.Sizeof(*context)),
		contextIn:     uint64(uintptr(unsafe.Pointer(context))),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(context)
	if errno != 0 {
		return os.NewSyscallError("bpf BPF_PROG_TEST_RUN", errno)
	}
	if attr.retval != 0 {
		return fmt.Errorf("bpf BPF_PROG_TEST_RUN: the program returned %d", attr.retval)
	}
	return nil
}
