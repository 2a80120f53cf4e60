package nstest

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Failing runs fn on a thread on which system calls fail with errno where their
// first argument, a descriptor for instance, is first. It is for errors that the
// kernel gives only where a disk breaks or the machine's clock is set. fn must not
// end the test.
func Failing(t testing.TB, errno unix.Errno, first uint32, calls []uint32, fn func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the filters end with the thread
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for _, call := range calls {
			if err == nil {
				err = refuse(errno, call, first)
			}
		}
		if err == nil {
			fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// refuse installs a filter for the calling thread alone. The offsets are those of
// struct seccomp_data (linux/seccomp.h).
func refuse(errno unix.Errno, call, first uint32) error {
	const numberAt, firstAt = 0, 16
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: firstAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: first, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Not by unix.Prctl: the address has to be made where the kernel is called.
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("nstest: prctl PR_SET_SECCOMP: %w", errno)
	}
	return nil
}
