package freeze

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// endTimeout bounds the wait for the tracing thread's end, which takes
// microseconds.
const endTimeout = 10 * time.Second

// thread is the one OS thread that traces: ptrace(2) takes requests from the
// thread that seized, no other. It is thrown away in the end, because the
// thread's exit is the only way to let go of a tracee that is frozen by its
// cgroup or inside vfork (PTRACE_DETACH is ESRCH on one that is not stopped).
type thread struct {
	h       *holder
	letGo   chan struct{}
	reaped  chan struct{} // closed when the reaper has ended
	gone    chan struct{} // closed when the goroutine, not yet the thread, has ended
	endOnce func() error
}

// startThread stops h's tasks on a new thread, and holds them there.
func startThread(ctx context.Context, h *holder) (*thread, error) {
	t := &thread{h: h, letGo: make(chan struct{}), reaped: make(chan struct{}), gone: make(chan struct{})}
	t.endOnce = sync.OnceValue(t.join)
	stopped := make(chan error)
	go runOffMain(func() { t.run(ctx, stopped) })
	go t.reap()
	if err := <-stopped; err != nil {
		_ = t.end() // err says more
		return nil, err
	}
	return t, nil
}

// runOffMain runs work on a locked thread that ends with it. Go cannot end the
// process's first thread and parks it for ever instead, tracees and all; so if
// the goroutine was put there, it stays there until another one has its own.
func runOffMain(work func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		work()
		return
	}
	elsewhere := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(elsewhere)
		work()
	}()
	<-elsewhere
	runtime.UnlockOSThread()
}

func (t *thread) run(ctx context.Context, stopped chan<- error) {
	defer close(t.gone)
	t.h.mu.Lock()
	t.h.tid = unix.Gettid()
	err := t.h.stopAll(ctx)
	t.h.mu.Unlock()
	stopped <- err
	<-t.letGo
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	t.h.detachAll()
}

// end lets all tasks go and waits for the thread's end. It may be called again.
func (t *thread) end() error { return t.endOnce() }

func (t *thread) join() error {
	close(t.letGo)
	<-t.gone
	<-t.reaped
	t.h.proc.close()
	deadline := time.Now().Add(endTimeout)
	for unix.Tgkill(os.Getpid(), t.h.tid, 0) == nil {
		if time.Now().After(deadline) {
			return fmt.Errorf("release tasks: tracing thread %d did not end within %v", t.h.tid, endTimeout)
		}
		time.Sleep(20 * time.Microsecond)
	}
	return nil
}
