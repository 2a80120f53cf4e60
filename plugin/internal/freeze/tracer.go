package freeze

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// tracer is an OS thread that traces: ptrace(2) takes requests from the thread
// that seized, no other. It is thrown away in the end, because the thread's exit
// is the only way to let go of a tracee that is frozen by its cgroup or inside
// vfork (PTRACE_DETACH is ESRCH on one that is not stopped).
//
// It seizes by itself while it is busy; seizing is its own then. All else it does
// while the holder waits.
type tracer struct {
	tid   int           // known when ready is closed
	ready chan struct{} // closed when the thread is there
	jobs  chan func()   // closed when it is to end
	gone  chan struct{} // closed when the goroutine, not yet the thread, has ended

	next    []*member // to be seized
	seizing []seizure // under way, or not taken in yet
	busy    atomic.Bool
	current atomic.Pointer[seizure] // which may never end
	quit    atomic.Bool             // nobody wants the rest
	given   string                  // it is not waited for any more: why its seizure hangs
}

// seizure is one call of PTRACE_SEIZE.
type seizure struct {
	member *member
	began  time.Time
	err    error
}

func startTracer() *tracer {
	t := &tracer{ready: make(chan struct{}), jobs: make(chan func(), 1), gone: make(chan struct{})}
	go runOffMain(t.run)
	return t
}

// runOffMain runs work on a locked thread that ends with it. Go cannot end the
// process's first thread and parks it forever instead, tracees and all; so if
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

func (t *tracer) run() {
	defer close(t.gone)
	t.tid = unix.Gettid()
	close(t.ready)
	for job := range t.jobs {
		job()
	}
}

// do has the thread, which is not busy, make requests that do not sleep.
func (t *tracer) do(requests func()) {
	done := make(chan struct{})
	t.jobs <- func() { requests(); close(done) }
	<-done
}

// begin has the thread seize those that are next, and does not wait for it.
func (t *tracer) begin() {
	t.seizing = make([]seizure, len(t.next))
	for i, m := range t.next {
		t.seizing[i].member = m
	}
	t.next = nil
	t.current.Store(nil)
	t.busy.Store(true)
	t.jobs <- t.seizeAll
}

// seizeAll asks each task to stop as soon as it is ours: it runs until then.
func (t *tracer) seizeAll() {
	for i := range t.seizing {
		if t.quit.Load() {
			break
		}
		s := &t.seizing[i]
		s.began = time.Now()
		t.current.Store(s)
		if s.err = seize(s.member.tid); s.err == nil {
			_ = interrupt(s.member.tid) // if it has died meanwhile, look will see it
		}
	}
	t.busy.Store(false)
}

// pending reports whether it has somebody to seize, or has seized somebody who is not
// taken in yet.
func (t *tracer) pending() bool { return len(t.seizing)+len(t.next) > 0 }

// hung returns the task whose seizure takes longer than it may, nil if none does.
func (t *tracer) hung(limit time.Duration) *member {
	s := t.current.Load()
	if s == nil || !t.busy.Load() || time.Since(s.began) <= limit {
		return nil
	}
	return s.member
}

// end has the thread let go of what has stopped, then exit, and waits for neither.
// One that is busy only exits, when it can.
func (t *tracer) end(stopped []*member) {
	t.quit.Store(true)
	if !t.busy.Load() {
		t.jobs <- func() {
			for _, m := range stopped {
				_ = detach(m.tid, m.signal())
			}
		}
	}
	close(t.jobs)
}

// ended waits for the thread's exit until the deadline.
func (t *tracer) ended(deadline time.Time) bool {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case <-t.gone:
	case <-late.C:
		return false
	}
	for unix.Tgkill(os.Getpid(), t.tid, 0) == nil {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Microsecond)
	}
	return true
}
