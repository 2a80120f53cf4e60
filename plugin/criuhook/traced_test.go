package criuhook_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// trace makes this process the tracer of another one, all of whose threads run on, or
// stop, until the end of the test or until it is let go.
func trace(t *testing.T, pid int, stop bool) (letGo func()) {
	t.Helper()
	requests := []uintptr{unix.PTRACE_SEIZE}
	if stop {
		requests = append(requests, unix.PTRACE_INTERRUPT)
	}
	traced, over, gone := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread() // it is the tracer
		traced <- eachThread(pid, requests...)
		<-over
		if stop {
			_ = eachThread(pid, unix.PTRACE_DETACH)
		}
	}()
	if err := <-traced; err != nil {
		t.Fatal(err)
	}
	letGo = sync.OnceFunc(func() { close(over); <-gone })
	t.Cleanup(letGo)
	return letGo
}

func eachThread(pid int, requests ...uintptr) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		for _, request := range requests {
			if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, uintptr(tid), 0, 0, 0, 0); errno != 0 {
				return errno
			}
		}
	}
	return nil
}

// A neighbour that another CRIU has stopped is thawed soon after that one's turn is over,
// and held then; on a busy machine it takes more than a moment.
func TestNeighbourOfAnotherCRIU(t *testing.T) {
	r := newRig(t)
	neighbour := nstest.Start(t, r.ns, idle)
	fill(t, r.ns, 1, 2)
	time.AfterFunc(1500*time.Millisecond, trace(t, neighbour.PID(), true))
	said := r.must(criuhook.PreDump)
	if !strings.Contains(said, "of neighbours stopped") || strings.Contains(said, "not stopped") {
		t.Errorf("pre-dump says %q", said)
	}
}

// A neighbour that runs under a tracer cannot be stopped. What it leaves alone while
// CRIU copies is copied; a message that it passes around fails the dump, though
// the queue is as it was.
func TestTracedNeighbour(t *testing.T) {
	for _, uses := range []bool{false, true} {
		r := newRig(t)
		neighbour := nstest.Start(t, r.ns, idle)
		trace(t, neighbour.PID(), false)
		fill(t, r.ns, 1, 2)
		filled := time.Now().Unix()
		await(t, "another second", func() bool { return time.Now().Unix() > filled }) // the queue's times are whole ones
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
