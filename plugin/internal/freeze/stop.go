package freeze

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

// event is the ptrace event a task stopped for, 0 if it is about to take a
// signal.
func (m *member) event() int { return m.status >> 8 }

// signal is what the task must be given on its way.
func (m *member) signal() int {
	if m.event() != 0 {
		return 0
	}
	return m.status & 0x7f
}

// look finds out whether a tracee has stopped, has gone, or stands still no
// longer, and tells whether anything was new.
func (h *holder) look(m *member) (moved bool) {
	w, err := peek(m.tid)
	switch {
	case err != nil: // ECHILD: dead and reaped, or it has another id since execve
		h.forget(m)
		return true
	case w.exited():
		h.bury(m)
		return true
	case w.reported():
		return h.stop(m, int(w.status))
	case m.stopped:
		return h.lost(m)
	}
	return false
}

// stop takes in what a stopped task reports. Any stop will do.
func (h *holder) stop(m *member, status int) (moved bool) {
	if m.stopped && m.status == status {
		return false
	}
	m.stopped, m.status, m.why, m.ended = true, status, "", false
	switch m.event() {
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_CLONE:
		h.adopt(m)
	}
	if !m.checked {
		m.checked = true
		h.check(m)
	}
	return true
}

// adopt takes in a child that the kernel has seized at birth.
func (h *holder) adopt(parent *member) {
	tid, err := newChild(parent.tid)
	if err != nil || h.members[tid] != nil {
		return
	}
	st, ok := h.proc.status(tid)
	if !ok || st.tracer != h.tid {
		return
	}
	h.add(&member{tid: tid, pid: st.process, seized: true})
}

// check lets a stopped task go that is not in the namespace: it left between
// our look and its stop, or was born into another one (CLONE_NEWIPC).
func (h *holder) check(m *member) {
	link, err := h.proc.ipcLink(m.tid)
	if err == nil && bytes.Equal(link, h.want) && h.spare.why(m.pid) == "" {
		return
	}
	_ = detach(m.tid, m.signal())
	h.forget(m)
}

// lost is called where a held task reports no stop. Either another thread of
// our process waited for it and took the report, or the task is a new one under
// a dead first thread's id (execve), or it is being killed.
func (h *holder) lost(m *member) (moved bool) {
	if _, err := stopInfo(m.tid); err == nil {
		return false
	}
	m.stopped, m.checked = false, false
	m.since = time.Now()
	h.ask(m)
	return true
}

// recover finds a stop whose report another thread of our process took.
func (h *holder) recover(m *member) bool {
	s, err := stopInfo(m.tid)
	if err != nil {
		return false
	}
	status := int(s.signo)
	// An event stop has its status for a code (ptrace_do_notify).
	if int(s.code)&0x7f == status && s.code>>8 > 0 {
		status = int(s.code)
	}
	return h.stop(m, status)
}
