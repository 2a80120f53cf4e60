package freeze

import (
	"fmt"
	"strings"
	"time"
)

// explainAll asks of each task that has not stopped whether it can run at all.
// Of those that can and had their time it blames the first; one in vfork only
// if there is no other, because its child is the one to blame.
func (h *holder) explainAll(waiting []*member) error {
	var late *member
	for _, m := range waiting {
		if !h.knows(m) || m.stopped {
			continue
		}
		if err := h.explain(m); err != nil {
			return err
		}
		if h.knows(m) && !m.still() && time.Since(m.since) > h.opt.Timeout && (late == nil || h.inVfork(late.tid)) {
			late = m
		}
	}
	if late == nil {
		return nil
	}
	return h.blame(late, h.excuse(late))
}

// explain sets m.why if the task cannot run although it has not stopped for us.
func (h *holder) explain(m *member) error {
	m.why = ""
	if !m.seized {
		return h.explainForeign(m)
	}
	if h.recover(m) {
		return nil
	}
	switch h.proc.state(m.tid) {
	case 'Z', 'X':
		m.ended = true
	case 'D':
		m.why = h.whyAsleep(m)
	default:
		_ = interrupt(m.tid) // after an execve another thread has this id, and it may not have got ours
	}
	return nil
}

// explainForeign tries again to seize, because the other tracer may have let
// go or the cgroup may have been thawed.
func (h *holder) explainForeign(m *member) error {
	if err := h.seize(m); err != nil || m.seized || m.why != "" || !h.knows(m) {
		return err
	}
	switch h.proc.state(m.tid) {
	case 't', 'T':
		m.why = WhyTraced
	case 'D':
		m.why = h.whyAsleep(m)
	}
	return nil
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
	st, ok := h.proc.status(m.tid)
	if ok && !m.seized && st.tracer != 0 {
		tracer := st.tracer
		if t, ok := h.proc.status(tracer); ok {
			tracer = t.process
		}
		return fmt.Errorf("is traced by %q (pid %d) and runs", h.proc.text(tracer, "comm"), tracer)
	}
	if st.state != 'D' {
		return fmt.Errorf("did not stop within %v: in state %q", h.opt.Timeout, st.state)
	}
	err := fmt.Errorf("did not stop within %v: in uninterruptible sleep (wchan %s)", h.opt.Timeout, h.proc.text(m.tid, "wchan"))
	if h.inVfork(m.tid) {
		err = fmt.Errorf("%w, inside vfork for a child that is not stopped", err)
	}
	return err
}

// inVfork tells whether a task in state D waits in vfork(2): the sleeper is
// kernel_clone since Linux 5.10 and _do_fork before (kernel/fork.c). It is the
// name that tells; /proc/TID/syscall would hang while the task is in execve.
func (h *holder) inVfork(tid int) bool {
	sleeper := h.proc.text(tid, "wchan")
	return strings.Contains(sleeper, "fork") || strings.Contains(sleeper, "clone")
}

// childStands tells whether the child that m waits for stands still: the
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
