package freeze

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// TestBornSeized catches a task in the microsecond between its seizure and its
// stop: the child it then forks is ours from birth, and stays so only if it is
// of the namespace. The children end without a signal, for which their parent
// would stop as well.
func TestBornSeized(t *testing.T) {
	for _, flags := range []int{0, unix.CLONE_NEWIPC} {
		t.Run("flags="+strconv.Itoa(flags), func(t *testing.T) {
			ns, c := nstest.Fresh(t), newCounters(t)
			p := nstest.Start(t, ns, forkProgram, c.Path, "1", strconv.Itoa(flags))
			c.waitMoved(t, 1)
			loop := forkLoopOf(t, ns, p.PID())
			nstest.Try(t, func() error {
				c.waitMoved(t, 1)
				if !bornSeized(t, ns.Inode(), loop, flags == 0) {
					return errors.New("the parent did not fork in that moment")
				}
				return nil
			})
			eventually(t, "the tracing thread has ended", func() bool {
				for _, task := range append(tasksOf(t, ns.Inode()), tasksBut(t, ns.Inode())...) {
					if task.parent == loop && task.tracer != 0 {
						return false
					}
				}
				return true
			})
			c.waitMoved(t, 1)
		})
	}
}

// bornSeized returns false if the parent did not fork in time: a task that goes on
// for a millisecond is asked to stop.
func bornSeized(t *testing.T, inode uint64, loop int, inside bool) (born bool) {
	t.Helper()
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	h := newHolder(proc, inode, Options{Timeout: deadline})
	defer h.release()
	h.spare = newSpare(proc, h.self, nil)
	parent := h.add(&member{tid: loop, pid: loop, by: h.tracers.of(loop, false), seized: true})
	parent.by.do(func() { err = seize(loop) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	if parent.event() != unix.PTRACE_EVENT_CLONE {
		return false
	}
	var child int
	parent.by.do(func() { child, err = newChild(loop) })
	if err != nil {
		t.Fatal(err)
	}
	if m := h.members[child]; (m != nil && m.stopped) != inside {
		t.Errorf("child %d: %+v, want it held: %t", child, m, inside)
	}
	if st, ok := proc.status(child); ok && (st.tracer == parent.by.tid) != inside {
		t.Errorf("child %d is traced by %d, we are %d, want it held: %t", child, st.tracer, parent.by.tid, inside)
	}
	return true
}
