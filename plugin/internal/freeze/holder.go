package freeze

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// member is a task of the namespace, or a child just born to one.
type member struct {
	tid, pid int
	since    time.Time // when it was asked to stop, or met under another tracer
	by       *tracer   // whose tracee it is or is to be
	foreign  bool      // it was met under another tracer
	seized   bool      // it is our tracee
	checked  bool      // its namespace was looked at again after its first stop
	stopped  bool
	status   int    // what it stopped for: a signal, an event above bit 8
	why      string // it has not stopped for us, yet cannot run: the reason
	given    string // it has not stopped in its time, and is not waited for any more: the reason
	ended    bool   // a first thread that has ended before the others
}

// still reports whether the task is not waited for: it runs no more, for whatever
// reason, or has had its time.
func (m *member) still() bool { return m.stopped || m.ended || m.why != "" || m.given != "" }

// held reports whether m is a tracee whose tracer takes requests.
func (m *member) held() bool { return m.seized && !m.by.busy.Load() }

// holder stops tasks and knows those it holds. It is one goroutine's, which never
// waits for a tracer that is busy.
type holder struct {
	proc    *procfs
	freezer freezer
	want    []byte // what the namespace's links read
	opt     Options
	self    int // our pid
	longest time.Duration
	deadMan *deadMan // nil without one: then unwatched says why

	unwatched error

	tracers tracers
	members map[int]*member // by tid
	fresh   []*member       // not yet looked at
	last    *member         // that came in
	spare   *spare          // of this round
	stirred bool            // a task has stopped since its beginning

	// Of the last round.
	spared     map[int]Task // by tid: births may look again at one that was listed
	unreadable int
	caught     bool // up with the births
	rounds     int
	unseen     bool // tasks may have been born that we did not see
}

func newHolder(proc *procfs, inode uint64, opt Options) *holder {
	return &holder{
		proc:    proc,
		freezer: findFreezer(),
		want:    []byte(nsenter.Link(inode)),
		opt:     opt,
		self:    os.Getpid(),
		longest: longest,
		tracers: tracers{byProcess: map[int]*tracer{}},
		members: map[int]*member{},
		spared:  map[int]Task{},
	}
}

// mostLost is how many rounds may lose sight of who is born before it is left at
// that: on a machine where tasks are born all the time they need not be ours.
const mostLost = 3

// stopAll goes over /proc until a whole round finds nobody new and changes
// nothing: a task may be born unseen (CLONE_UNTRACED, or between the look of
// the kernel whether its parent is traced and its birth) or enter with setns.
func (h *holder) stopAll(ctx context.Context) (err error) {
	began := time.Now()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("after %v, in round %d over /proc: %w", time.Since(began).Round(time.Millisecond), h.rounds, err)
		}
	}()
	for lost := 0; ; {
		h.stirred = false
		found, err := h.round(ctx)
		if err != nil {
			return err
		}
		moved, err := h.settle(ctx)
		if err != nil {
			return err
		}
		restless := found || moved || h.stirred
		switch {
		case !restless && h.caught:
			return nil
		case restless && time.Since(began) > h.longest:
			return h.flood()
		case restless && !h.gaveUp(): // a task that runs on may start others without an end
			continue
		}
		if lost++; lost == mostLost {
			h.unseen = true
			return nil
		}
	}
}

// gaveUp reports whether a task of the namespace is not waited for any more.
func (h *holder) gaveUp() bool {
	for _, m := range h.members {
		if m.given != "" {
			return true
		}
	}
	return false
}

// flood blames the youngest.
func (h *holder) flood() error {
	err := fmt.Errorf("new tasks keep coming, faster than they can be stopped, for %v", h.longest)
	if h.last == nil {
		return err
	}
	return h.blame(h.last, err)
}

// round finds everybody new, asks all of them to stop at once, and waits for
// nobody.
func (h *holder) round(ctx context.Context) (found bool, err error) {
	h.rounds++
	clear(h.spared)
	h.spare = newSpare(h.proc, h.self, h.opt.Exempt)
	w := walk{proc: h.proc, born: h.proc.lastPID}
	w.found = func(pid, tid int, link []byte) error {
		if !bytes.Equal(link, h.want) {
			return nil
		}
		if why := h.spare.why(pid); why != "" {
			h.spared[tid] = h.proc.task(pid, tid, why)
			return nil
		}
		w.inside++
		known := h.meet(pid, tid)
		found = found || !known
		return nil
	}
	last := h.proc.lastPID()
	if err = w.run(ctx); err == nil {
		h.caught, err = w.births(last)
	}
	h.unreadable = w.unreadable
	if err == nil {
		h.tracers.begin()
	}
	return found || w.ragged, err
}

// meet takes a task of the namespace in. One that is known but had ended is a
// new one: execve(2) gives the first thread's id to the thread that called it.
func (h *holder) meet(pid, tid int) (known bool) {
	if m := h.members[tid]; m != nil && !m.ended {
		return true
	}
	h.seize(h.add(&member{tid: tid, pid: pid}))
	return false
}

func (h *holder) add(m *member) *member {
	m.since = time.Now()
	h.members[m.tid], h.last = m, m
	h.fresh = append(h.fresh, m)
	return m
}

func (h *holder) forget(m *member) { delete(h.members, m.tid) }

// knows reports whether m has not been forgotten meanwhile.
func (h *holder) knows(m *member) bool { return h.members[m.tid] == m }

// seize puts a task among those that its process's tracer is to seize next. One
// that must not be seized now stays a member without it.
func (h *holder) seize(m *member) {
	state := h.proc.state(m.tid)
	if h.unseizable(m.tid, state) {
		m.why = WhyFrozen
		return
	}
	m.by = h.tracers.of(m.pid, h.mayHang(m, state))
	m.by.next = append(m.by.next, m)
}

// mayHang reports whether a task's process may be in an execve(2) that does not end:
// while it waits for its other threads, or for a file system to read the program, as
// one of FUSE that a tenant serves.
func (h *holder) mayHang(m *member, state byte) bool {
	if h.proc.threads(m.pid) > 1 {
		return true
	}
	switch state {
	case 'D':
		return true
	case 'S': // fuse_dev.c, mm/userfaultfd.c and fs/locks.c sleep so that signals wake them
		switch h.proc.text(m.tid, "wchan") {
		case "request_wait_answer", "handle_userfault", "__break_lease":
			return true
		}
	}
	return false
}

// taken takes in how a task's seizure went. One that somebody else traces stays a
// member without it.
func (h *holder) taken(m *member, err error) error {
	switch {
	case !h.knows(m): // it died, and was buried
		return nil
	case err == nil:
		m.seized, m.since = true, time.Now()
		return nil
	case errors.Is(err, unix.ESRCH):
		h.forget(m)
		return nil
	}
	st, ok := h.proc.status(m.tid)
	switch {
	case !ok || st.dead():
		h.bury(m)
	case h.tracers.byThread(st.tracer) != nil: // seized at birth, or under another id before execve
		h.ask(m)
	case st.tracer != 0:
		if !m.foreign {
			m.foreign, m.since = true, time.Now()
		}
	case !errors.Is(err, unix.EPERM) || !mayTrace(m.tid) || time.Since(m.since) > h.opt.Timeout:
		return h.blame(m, explainSeize(err))
	default: // whoever traced it has just let go, or the one we meant was dead after execve
		h.seize(m)
	}
	return nil
}

func explainSeize(err error) error {
	return fmt.Errorf("%w (needs the same user with all of the task's capabilities and no restriction "+
		"by kernel.yama.ptrace_scope, or CAP_SYS_PTRACE)", err)
}

// ask is repeated where a task may not have got it; a second time changes
// nothing. The thread that traces it may be another one than before: execve(2)
// gives its own to the first thread's id. Or it is nobody's, if nobody had seized
// the thread that called execve: then it is a new task under an old id, which
// waitid(2) does not tell if it is a child of our own process. A task that has
// died meanwhile is noticed by look.
func (h *holder) ask(m *member) {
	st, _ := h.proc.status(m.tid)
	t := h.tracers.byThread(st.tracer)
	if t == nil {
		m.seized = false
		h.doubt(m)
		h.seize(m)
		return
	}
	m.by, m.seized, m.why = t, true, ""
	if m.held() {
		t.do(func() { _ = interrupt(m.tid) })
	}
}

func (h *holder) blame(m *member, err error) error {
	return &TaskError{Task: h.proc.task(m.pid, m.tid, ""), Err: err}
}

// processes returns those that members belong to.
func (h *holder) processes() map[int]bool {
	all := map[int]bool{}
	for _, m := range h.members {
		all[m.pid] = true
	}
	return all
}

func (h *holder) report() Report {
	r := Report{Unwatched: h.unwatched, Rounds: h.rounds, Unreadable: h.unreadable, Unseen: h.unseen, Loose: slices.Collect(maps.Values(h.spared)), Since: h.tracers.since}
	for _, m := range h.members {
		switch {
		case m.stopped:
			r.Tasks++
		case m.why != "" || m.given != "":
			r.Loose = append(r.Loose, h.proc.task(m.pid, m.tid, cmp.Or(m.why, m.given)))
		}
	}
	sortTasks(r.Loose)
	return r
}
