package freeze

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// foreignTimeout is how long a task may run under another tracer: one that stops
// it does so at once.
const foreignTimeout = 200 * time.Millisecond

// unseenStops is for how many times its time a task that has stopped may not be seen to.
const unseenStops = 5

// explainAll asks of each task that has not stopped whether it can run at all.
// One that can, and had its time, is not waited for any more, if something that
// is not ours keeps it from stopping: whoever lives in a namespace could arrange
// for that, and must not be able to keep the namespace from being copied for good.
// The report names it. Of others the first is to blame.
func (h *holder) explainAll(waiting []*member) error {
	if err := h.giveUpHung(); err != nil {
		return err
	}
	var late *member
	for _, m := range waiting {
		if !h.knows(m) || m.stopped {
			continue
		}
		if m.by != nil && m.by.given != "" {
			m.given = m.by.given
			continue
		}
		if m.undecided() {
			continue
		}
		h.explain(m)
		if !h.knows(m) || m.still() || !h.late(m) {
			continue
		}
		if m.given = h.unstoppable(m); m.given == "" {
			late = m
		}
	}
	if late == nil {
		return nil
	}
	return h.blame(late, h.excuse(late))
}

func (h *holder) late(m *member) bool {
	limit := h.opt.Timeout
	switch took := time.Since(m.since); {
	case m.foreign && !m.seized:
		return took > min(limit, foreignTimeout)
	case took <= limit:
		return false
	case m.seized && h.proc.state(m.tid) == 't': // on a busy machine it is we who are late: the next look sees it
		return took > unseenStops*limit
	}
	return true
}

// unstoppable returns what keeps a task from stopping that is not for us to end,
// "" for nothing.
func (h *holder) unstoppable(m *member) string {
	st, ok := h.proc.status(m.tid)
	switch {
	case !ok:
		return ""
	case !m.seized && st.tracer != 0:
		return "runs, and is traced by " + h.nameOf(st.tracer)
	case st.state == 'D' && h.inVfork(m.tid):
		return "is inside vfork for a child that is not stopped"
	case st.state == 'D':
		return fmt.Sprintf("is in uninterruptible sleep (wchan %s)", h.proc.text(m.tid, "wchan"))
	}
	return ""
}

// undecided: the kernel has not said yet whether it is ours, or nobody could hear it.
func (m *member) undecided() bool {
	return m.by != nil && (m.by.busy.Load() || !m.seized && m.by.pending())
}

// execveTimeout is how long an execve(2) may take where only its own process is kept
// by it.
const execveTimeout = 500 * time.Millisecond

// giveUpHung does not wait any more for tracers whose seizure does not come back, nor
// for what they were to seize. One that has others to let go is to be waited for,
// and has its time. A tracer that could run, and has no processor, waits for nobody.
func (h *holder) giveUpHung() error {
	for _, t := range h.tracers.all {
		limit := h.opt.Timeout
		alone := h.tracers.alone(t)
		if alone {
			limit = min(limit, execveTimeout)
		}
		m := t.hung(limit)
		if m == nil || t.given != "" || h.proc.state(t.tid) == 'R' {
			continue
		}
		err := h.excuseExecve(m.pid, limit)
		if !alone {
			return h.blame(m, err)
		}
		t.given = err.Error()
	}
	return nil
}

// explain sets m.why if the task cannot run although it has not stopped for us.
func (h *holder) explain(m *member) {
	m.why = ""
	if !m.seized {
		h.explainForeign(m)
		return
	}
	if h.recover(m) {
		return
	}
	switch h.proc.state(m.tid) {
	case 'Z', 'X':
		m.ended = true
	case 'D':
		m.why = h.whyAsleep(m)
	default:
		h.ask(m) // after an execve another thread has this id, and it may not have got ours
	}
}

// explainForeign has a task seized again if the other tracer has let go or the
// cgroup may have been thawed.
func (h *holder) explainForeign(m *member) {
	st, ok := h.proc.status(m.tid)
	switch {
	case !ok || st.dead():
		h.bury(m)
	case st.tracer == 0 || h.tracers.byThread(st.tracer) != nil:
		h.seize(m)
	case st.state == 't', st.state == 'T':
		m.why = WhyTraced
	case st.state == 'D':
		m.why = h.whyAsleep(m)
	}
}

// whyAsleep is asked of a task in state D, which takes no stop.
func (h *holder) whyAsleep(m *member) string {
	switch {
	case h.frozen(m.tid):
		return WhyFrozen
	case h.inVfork(m.tid) && h.childStands(m):
		return WhyVfork
	}
	return ""
}

// excuse says why a task that had its time has not stopped.
func (h *holder) excuse(m *member) error {
	st, _ := h.proc.status(m.tid)
	return fmt.Errorf("did not stop within %v: in state %q", h.opt.Timeout, st.state)
}

// excuseExecve says why a seizure of one of a process's threads has not come
// back: what it waits for is the process's execve(2), and that for all other
// threads to be reaped.
func (h *holder) excuseExecve(pid int, limit time.Duration) error {
	err := fmt.Errorf("cannot be seized: its process has been in execve for %v", limit)
	tid, tracer := h.unreaped(pid)
	if tid == 0 {
		return err
	}
	return fmt.Errorf("%w, and waits for its thread %d, which has ended and is traced by %s, who does not reap it", err, tid, h.nameOf(tracer))
}

// unreaped finds a thread that has ended under another tracer.
func (h *holder) unreaped(pid int) (tid, tracer int) {
	fd, err := h.proc.openTask(pid, "task")
	if err != nil {
		return 0, 0
	}
	defer unix.Close(fd)
	_ = eachNumber(fd, h.proc.tids, func(n int) error {
		if st, ok := h.proc.status(n); ok && st.dead() && st.tracer != 0 && h.tracers.byThread(st.tracer) == nil {
			tid, tracer = n, st.tracer
		}
		return nil
	})
	return tid, tracer
}

// nameOf names the process that a thread belongs to.
func (h *holder) nameOf(tid int) string {
	if st, ok := h.proc.status(tid); ok {
		tid = st.process
	}
	return fmt.Sprintf("%q (pid %d)", h.proc.text(tid, "comm"), tid)
}

// inVfork reports whether a task in state D waits in vfork(2): the sleeper is
// kernel_clone since Linux 5.10 and _do_fork before (kernel/fork.c). It is the
// name that tells; /proc/TID/syscall would hang while the task is in execve.
func (h *holder) inVfork(tid int) bool {
	sleeper := h.proc.text(tid, "wchan")
	return strings.Contains(sleeper, "fork") || strings.Contains(sleeper, "clone")
}

// childStands reports whether the child that m waits for stands still: the
// children that use m's memory, or all if none does (clone with CLONE_VFORK
// alone).
func (h *holder) childStands(m *member) bool {
	var sharing, all []int
	for _, field := range strings.Fields(h.proc.text(m.tid, ofThread(m.tid, "children"))) {
		child := number([]byte(field))
		if st, ok := h.proc.status(child); !ok || st.dead() {
			continue
		}
		all = append(all, child)
		if same, err := sameMemory(m.tid, child); err == nil && same {
			sharing = append(sharing, child)
		}
	}
	if len(sharing) == 0 {
		sharing = all
	}
	for _, child := range sharing {
		if c := h.members[child]; c == nil || !c.still() {
			return false
		}
	}
	return len(sharing) > 0
}
