package freeze

import (
	"bytes"
	"errors"
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

// request has a task's tracer make a request. ESRCH may mean that it is another
// one's since execve(2), which gives a thread, and its tracer, the first one's id.
func (h *holder) request(m *member, ask func() error) (err error) {
	m.by.do(func() { err = ask() })
	if !errors.Is(err, unix.ESRCH) {
		return err
	}
	st, _ := h.proc.status(m.tid)
	if t := h.tracers.byThread(st.tracer); t != nil && t != m.by && !t.busy.Load() {
		m.by = t
		t.do(func() { err = ask() })
	}
	return err
}

// look finds out whether a tracee has stopped, has gone, or stands still no
// longer, and reports whether anything was new.
func (h *holder) look(m *member) (moved bool) {
	w, err := peek(m.tid)
	switch {
	case err != nil: // ECHILD: dead and reaped, or it has the first thread's id since execve
		h.forget(m)
		h.doubt(h.members[m.pid])
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

// doubt has a task, if it is known, looked at as one that has not stopped yet: what
// is known may be of another one, which had its id before.
func (h *holder) doubt(m *member) {
	if m != nil {
		m.stopped, m.checked = false, false
	}
}

// stop takes in what a stopped task reports. Any stop will do.
func (h *holder) stop(m *member, status int) (moved bool) {
	if m.stopped && m.status == status {
		return false
	}
	m.stopped, m.status, m.why, m.given, m.ended, h.stirred = true, status, "", "", false, true
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
	var tid int
	err := h.request(parent, func() (err error) { tid, err = newChild(parent.tid); return err })
	if err != nil || h.members[tid] != nil {
		return
	}
	st, ok := h.proc.status(tid)
	if by := h.tracers.byThread(st.tracer); ok && by != nil {
		h.add(&member{tid: tid, pid: st.process, by: by, seized: true})
	}
}

// check lets a stopped task go that is not in the namespace: it left between
// our look and its stop, or was born into another one (CLONE_NEWIPC).
func (h *holder) check(m *member) {
	link, err := h.proc.ipcLink(m.tid)
	if err == nil && bytes.Equal(link, h.want) && h.spare.why(m.pid) == "" {
		return
	}
	_ = h.request(m, func() error { return detach(m.tid, m.signal()) })
	h.forget(m)
}

// lost is called where a held task reports no stop. Another thread of our process
// waited for it and took the report, or the task is a new one under a dead first
// thread's id (execve), which may have stopped since; or it is being killed.
func (h *holder) lost(m *member) (moved bool) {
	status, err := h.stopStatus(m)
	if err == nil {
		return h.stop(m, status)
	}
	h.doubt(m)
	m.since = time.Now()
	h.ask(m)
	return true
}

// recover finds a stop whose report another thread of our process took.
func (h *holder) recover(m *member) bool {
	status, err := h.stopStatus(m)
	return err == nil && h.stop(m, status)
}

// stopStatus asks the task's tracer what it has stopped for.
func (h *holder) stopStatus(m *member) (status int, err error) {
	var s siginfo
	err = h.request(m, func() error { s, err = stopInfo(m.tid); return err })
	status = int(s.signo)
	// An event stop has its status for a code (ptrace_do_notify).
	if int(s.code)&0x7f == status && s.code>>8 > 0 {
		status = int(s.code)
	}
	return status, err
}
