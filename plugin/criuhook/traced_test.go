package criuhook_test

import (
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// trace makes this process the tracer of another, which runs on, until the end of the
// test.
func trace(t *testing.T, pid int) {
	t.Helper()
	traced, over := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // it is the tracer, and ends with the goroutine
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
		if errno != 0 {
			traced <- errno
			return
		}
		traced <- nil
		<-over
	}()
	if err := <-traced; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(over) })
}

// A neighbour that runs under a tracer cannot be stopped. What it leaves alone while
// CRIU copies is copied; a message that it passes around fails the dump, though
// the queue is as it was.
func TestTracedNeighbour(t *testing.T) {
	for _, uses := range []bool{false, true} {
		r := newRig(t)
		neighbour := nstest.Start(t, r.ns, idle)
		trace(t, neighbour.PID())
		fill(t, r.ns, 1, 2)
		if said := r.must(criuhook.PreDump); !strings.Contains(said, "1 task of neighbours not stopped") && !strings.Contains(said, "tasks of neighbours not stopped") {
			t.Errorf("pre-dump says %q", said)
		}
		r.dump(1)
		if uses {
			inside(t, r.ns, passAround)
		}
		said, err := r.run(criuhook.PostDump)
		if uses && (err == nil || !strings.Contains(err.Error(), "queue 0 (key 0x1): was in use while CRIU copied it")) {
			t.Errorf("it was used: %v", err)
		}
		if !uses && (err != nil || !strings.Contains(said, "1 queue, 2 messages verified")) {
			t.Errorf("it was not used: %q, %v", said, err)
		}
	}
}

// passAround sends what it receives, until all messages were.
func passAround(k kernel.Kernel) error {
	for range 2 {
		var b [64]byte
		if _, _, errno := unix.Syscall6(unix.SYS_MSGRCV, 0, uintptr(unsafe.Pointer(&b)), uintptr(len(b)-kernel.HeaderLen), 0, 0, 0); errno != 0 {
			return errno
		}
		if err := k.Send(0, message(0)); err != nil {
			return err
		}
	}
	return nil
}
