package freeze

import (
	"time"
)

// reapPause is the shortest pause of the reaper; it makes longer ones where a
// look at all tasks takes more than a hundredth of it.
const reapPause = 10 * time.Millisecond

// reap collects tasks that are killed while they are held. Until its tracer
// has waited for it a dead thread keeps its process from ending, and a thread
// in execve(2) from going on (de_thread in fs/exec.c waits for all others to
// be reaped).
//
// It is not the tracing thread that does it, for that one may hang because of
// just this: execve holds cred_guard_mutex meanwhile, and PTRACE_SEIZE of any
// thread of that process waits for it. wait(2) may be called by every thread of
// the tracer's process. The tracing thread gives up h.mu while it seizes.
func (t *thread) reap() {
	defer close(t.reaped)
	for pause := reapPause; ; {
		select {
		case <-t.letGo:
			return
		case <-time.After(pause):
		}
		if !t.h.mu.TryLock() {
			continue
		}
		began := time.Now()
		t.h.buryDead()
		pause = max(reapPause, 100*time.Since(began))
		t.h.mu.Unlock()
	}
}

func (h *holder) buryDead() {
	for _, m := range h.members {
		if !m.seized {
			continue
		}
		if w, err := peek(m.tid); err == nil && w.exited() {
			h.bury(m)
		}
	}
}

// bury reaps a dead tracee, unless it is a process that the caller's own
// process is the parent of: that one is somebody else's to wait for. For other
// processes the tracer's wait only hands the zombie on to the parent.
func (h *holder) bury(m *member) {
	delete(h.members, m.tid)
	if m.tid == m.pid {
		st, ok := h.proc.status(m.tid)
		if !ok || st.parent == h.self {
			return
		}
	}
	_ = waitDead(m.tid) // it is gone one way or the other
}
