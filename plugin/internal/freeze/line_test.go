package freeze

import (
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A task that was seized while the holder had no processor is not taken for
// another tracer's, nor seized twice.
func TestNotTakenInYet(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	h := newHolder(proc, ns.Inode(), Options{Timeout: time.Millisecond})
	m := h.add(&member{tid: p.PID(), pid: p.PID(), since: time.Now()})
	h.seize(m)
	<-m.by.ready
	h.tracers.begin()
	eventually(t, "it is seized", func() bool { return !m.by.busy.Load() && time.Since(m.since) > 2*h.opt.Timeout })
	if err := h.explainAll([]*member{m}); err != nil || len(m.by.next) > 0 {
		t.Errorf("%v, %d are seized again", err, len(m.by.next))
	}
	if _, err := h.release(); err != nil {
		t.Error(err)
	}
	proc.close()
}

// Processes of one thread are stopped by one thread of ours, and let go by it.
func TestProcessesOfOneThread(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, forkProgram, c.Path, "40", cloneFlags(0))
	c.waitMoved(t, 100)
	s := mustStop(t, ns, Options{})
	if n := len(s.holder.tracers.all); n > 2 || s.Report().Tasks < 5 { // the program's own is one of Go's
		t.Errorf("%d threads for %d tasks", n, s.Report().Tasks)
	}
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
}
