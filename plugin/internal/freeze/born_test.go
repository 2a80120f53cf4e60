package freeze

import (
	"context"
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
			ended := make(chan struct{})
			go runOffMain(func() {
				defer close(ended)
				bornSeized(t, ns.Inode(), loop, flags == 0)
			})
			<-ended
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

// bornSeized reports with t.Error alone: it is not the test's goroutine.
func bornSeized(t *testing.T, inode uint64, loop int, inside bool) {
	proc, err := openProc()
	if err != nil {
		t.Error(err)
		return
	}
	defer proc.close()
	h := newHolder(proc, inode, Options{Timeout: deadline})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tid, h.spare = unix.Gettid(), newSpare(proc, h.self, nil)
	if err := seize(loop); err != nil {
		t.Error(err)
		return
	}
	parent := h.add(&member{tid: loop, pid: loop, seized: true})
	if _, err := h.settle(context.Background()); err != nil {
		t.Error(err)
	}
	if event := parent.event(); event != unix.PTRACE_EVENT_CLONE {
		t.Errorf("the parent stopped for %#x, want a clone", parent.status)
	}
	child, err := newChild(loop)
	if err != nil {
		t.Error(err)
		return
	}
	if m := h.members[child]; (m != nil && m.stopped) != inside {
		t.Errorf("child %d: %+v, want it held: %t", child, m, inside)
	}
	if st, ok := proc.status(child); ok && (st.tracer == h.tid) != inside {
		t.Errorf("child %d is traced by %d, we are %d, want it held: %t", child, st.tracer, h.tid, inside)
	}
	h.detachAll()
}
