package freeze

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// member is a task of the namespace, or a child just born to one.
type member struct {
	tid, pid int
	since    time.Time // when it was asked to stop, or met under another tracer
	seized   bool      // it is our tracee
	checked  bool      // its namespace was looked at again after its first stop
	stopped  bool
	status   int    // what it stopped for: a signal, an event above bit 8
	why      string // it has not stopped for us, yet cannot run: the reason
	ended    bool   // a first thread that has ended before the others
}

// still tells whether the task runs no more, for whatever reason.
func (m *member) still() bool { return m.stopped || m.ended || m.why != "" }

// holder stops tasks and knows those it holds. mu is held by whoever uses it;
// ptrace calls are the tracing thread's alone.
type holder struct {
	proc    *procfs
	freezer freezer
	want    []byte // what the namespace's links read
	opt     Options
	self    int // our pid
	tid     int // the tracing thread

	mu      sync.Mutex
	members map[int]*member // by tid
	fresh   []*member       // not yet looked at
	spare   *spare          // of this round

	// Of the last round.
	spared     []Task
	unreadable int
	rounds     int
}

func newHolder(proc *procfs, inode uint64, opt Options) *holder {
	return &holder{
		proc:    proc,
		freezer: findFreezer(),
		want:    fmt.Appendf(nil, "ipc:[%d]", inode),
		opt:     opt,
		self:    os.Getpid(),
		members: map[int]*member{},
	}
}

// stopAll goes over /proc until a whole round finds nobody new and changes
// nothing: a task may be born unseen (CLONE_UNTRACED, or between the look of
// the kernel whether its parent is traced and its birth) or enter with setns.
func (h *holder) stopAll(ctx context.Context) error {
	for {
		found, err := h.round(ctx)
		if err != nil {
			return err
		}
		moved, err := h.settle(ctx)
		if err != nil {
			return err
		}
		if !found && !moved {
			return nil
		}
	}
}

// round asks everybody new to stop and waits for nobody, so that the first
// tasks stand before the last have forked on.
func (h *holder) round(ctx context.Context) (found bool, err error) {
	h.rounds++
	h.spared = h.spared[:0]
	h.spare = newSpare(h.proc, h.self, h.opt.Exempt)
	w := walk{proc: h.proc}
	w.found = func(pid, tid int, link []byte) error {
		if !bytes.Equal(link, h.want) {
			return nil
		}
		if why := h.spare.why(pid); why != "" {
			h.spared = append(h.spared, h.proc.task(pid, tid, why))
			return nil
		}
		w.inside++
		known, err := h.meet(pid, tid)
		found = found || !known
		return err
	}
	err = w.run(ctx)
	h.unreadable = w.unreadable
	return found || w.ragged, err
}

// meet takes a task of the namespace in. One that is known but had ended is a
// new one: execve(2) gives the first thread's id to the thread that called it.
func (h *holder) meet(pid, tid int) (known bool, err error) {
	if m := h.members[tid]; m != nil && !m.ended {
		return true, nil
	}
	m := h.add(&member{tid: tid, pid: pid})
	return false, h.seize(m)
}

func (h *holder) add(m *member) *member {
	m.since = time.Now()
	h.members[m.tid] = m
	h.fresh = append(h.fresh, m)
	return m
}

func (h *holder) forget(m *member) { delete(h.members, m.tid) }

// knows tells whether m has not been forgotten meanwhile.
func (h *holder) knows(m *member) bool { return h.members[m.tid] == m }

// seize makes a task our tracee and asks it to stop. A task that somebody else
// traces, and one that must not be seized now, stay members without it.
func (h *holder) seize(m *member) error {
	for range 3 {
		if h.unseizable(m.tid) {
			m.why = WhyFrozen
			return nil
		}
		err := h.trySeize(m.tid)
		switch {
		case err == nil:
			h.ask(m)
			return nil
		case errors.Is(err, unix.ESRCH):
			h.forget(m)
			return nil
		}
		st, ok := h.proc.status(m.tid)
		switch {
		case !ok || st.dead():
			h.forget(m)
			return nil
		case st.tracer == h.tid: // seized at birth, or under another id before execve
			h.ask(m)
			return nil
		case st.tracer != 0:
			return nil
		case !errors.Is(err, unix.EPERM):
			return h.blame(m, explainSeize(err))
		}
	}
	return h.blame(m, explainSeize(unix.EPERM))
}

// trySeize lets the reaper in while it may hang, see reap.
func (h *holder) trySeize(tid int) error {
	h.mu.Unlock()
	defer h.mu.Lock()
	return seize(tid)
}

func explainSeize(err error) error {
	return fmt.Errorf("%w (needs the same user with all of the task's capabilities and no restriction "+
		"by kernel.yama.ptrace_scope, or CAP_SYS_PTRACE)", err)
}

// ask is repeated where a task may not have got it; a second time changes
// nothing. A task that has died meanwhile is noticed by look.
func (h *holder) ask(m *member) {
	m.seized = true
	m.why = ""
	_ = interrupt(m.tid)
}

// detachAll lets go of all that can be let go of one by one. The thread's end
// does the rest, and kills no signal either (peek).
func (h *holder) detachAll() {
	for _, m := range h.members {
		if m.stopped {
			_ = detach(m.tid, m.signal())
		}
	}
}

func (h *holder) blame(m *member, err error) error {
	return &TaskError{Task: h.proc.task(m.pid, m.tid, ""), Err: err}
}

func (h *holder) report() Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Report{Rounds: h.rounds, Unreadable: h.unreadable, Loose: append([]Task(nil), h.spared...)}
	for _, m := range h.members {
		switch {
		case m.stopped:
			r.Tasks++
		case m.why != "":
			r.Loose = append(r.Loose, h.proc.task(m.pid, m.tid, m.why))
		}
	}
	sortTasks(r.Loose)
	return r
}
