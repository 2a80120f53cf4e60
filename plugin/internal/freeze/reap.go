package freeze

import (
	"time"

	"golang.org/x/sys/unix"
)

// reapPause is the shortest pause of the reaper; it makes longer ones where a
// look at all tasks takes more than a hundredth of it.
const reapPause = 10 * time.Millisecond

// reap collects tasks that are killed while they are held, until letGo is
// closed. Until its tracer has waited for it a dead thread keeps its process from
// ending, and a thread in execve(2) from going on (de_thread in fs/exec.c waits
// for all others to be reaped). wait(2) may be called by every thread of the
// tracer's process.
func (h *holder) reap(letGo <-chan struct{}) {
	for pause := reapPause; ; {
		select {
		case <-letGo:
			return
		case <-time.After(pause):
		}
		began := time.Now()
		h.buryDead()
		pause = max(reapPause, 100*time.Since(began))
	}
}

// buryDead looks at those that are only being seized as well: execve may wait for
// one of them, and a tracer for execve.
func (h *holder) buryDead() {
	for _, m := range h.members {
		if m.by == nil {
			continue
		}
		if w, err := peek(m.tid); err == nil && w.exited() {
			h.bury(m)
		}
	}
	for _, t := range h.tracers.all {
		if m := t.hung(reapPause); m != nil {
			h.buryStrangers(m.pid)
		}
	}
}

// buryStrangers reaps those of a process in execve that are ours and dead and no
// members: born to a task that had been seized and had not stopped yet, they are
// tracees of which nobody has told us.
func (h *holder) buryStrangers(pid int) {
	fd, err := h.proc.openTask(pid, "task")
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = eachNumber(fd, h.proc.tids, func(tid int) error {
		if st, ok := h.proc.status(tid); ok && st.dead() && h.members[tid] == nil && h.tracers.byThread(st.tracer) != nil {
			_ = waitDead(tid)
		}
		return nil
	})
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
