package freeze

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// longest is how long All goes on where somebody new is found in every round.
const longest = 10 * time.Second

// defaultTimeout is how long one task may take to stop if Options has no say.
const defaultTimeout = 2 * time.Second

// ErrHost is returned for the host's IPC namespace: stopping all of its tasks
// would stop the machine.
var ErrHost = errors.New("the host's ipc namespace is never stopped")

// Options says whom to spare and how long to wait.
type Options struct {
	// Exempt reports processes that are never stopped, beside the calling
	// process and its ancestors (nil: none). It is asked anew in each round,
	// from a goroutine of its own, with the pid as /proc shows it.
	Exempt func(pid int) bool
	// Timeout is how long one task may take to stop; 0 means 2 s.
	Timeout time.Duration
	// Limit is how long the caller holds the tasks at most, All included; 0 is
	// without a limit. It is for the caller to release them in time: when it is over
	// the kernel sends this process SIGCONT, if it was stopped itself, and 3 s later
	// SIGKILL, unless they are released by then (see Report.Unwatched). Without a limit the
	// same happens when it was stopped for 5 s.
	Limit time.Duration
}

// Report says what was stopped and what was not, as All found it.
type Report struct {
	Tasks      int // threads held
	Rounds     int // how often all of /proc was gone over
	Unreadable int // tasks whose ns/ipc link could not be read (EACCES)
	// Unseen: tasks were born and ended all the while, faster than they could be
	// looked at, and some of the namespace may be among them.
	Unseen bool
	// Loose are tasks of the namespace that are not held and may run, by pid and tid.
	Loose  []Task
	Since  time.Time // when the first one was seized, zero if there was none
	Seized bool      // a task was: it is traced until Release, whether it has stopped or not
	// Unwatched says why the signals of Options.Limit will not come, nil if they will.
	Unwatched error
}

// Stopped is the set of tasks held. It must be released: the tasks stand still
// until then, or until the process ends.
type Stopped struct {
	holder    *holder // its own goroutine's until the end
	report    Report
	processes map[int]bool // of which all known tasks stand still
	end       func() error
}

// All stops every task whose ns/ipc link reads "ipc:[inode]" and returns when
// a whole round over /proc found nobody new and all stand still. ctx bounds
// All alone, 10 s at most: once it has returned, the tasks are held until Release.
//
// On an error all tasks have been let go again, except for those of a process
// that an execve(2) which does not end keeps us from letting go: they are free
// when it has ended, or the calling process has. (Until then each such call keeps a
// thread and a descriptor.) It is a *TaskError if one task
// is to blame (EPERM or EACCES: no right to trace it), ctx's cause if that ended it, and ErrHost for
// the host's namespace.
func All(ctx context.Context, inode uint64, opt Options) (*Stopped, error) {
	s, err := all(ctx, inode, opt)
	if err != nil {
		return nil, fmt.Errorf("stop the tasks of %s: %w", nsenter.Name(inode, false), err)
	}
	return s, nil
}

func all(ctx context.Context, inode uint64, opt Options) (*Stopped, error) {
	if inode == nsenter.HostInode {
		return nil, ErrHost
	}
	if opt.Timeout <= 0 {
		opt.Timeout = defaultTimeout
	}
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	h := newHolder(proc, inode, opt)
	h.deadMan, h.unwatched = watchSelf(opt.Limit)
	return h.start(ctx)
}

// May reports, by its error, whether All would be refused a task of the namespace
// for a missing right, and how many tasks cannot be looked at. It stops nobody.
func May(ctx context.Context, inode uint64, exempt func(pid int) bool) (unreadable int, err error) {
	proc, err := openProc()
	if err != nil {
		return 0, err
	}
	defer proc.close()
	h := newHolder(proc, inode, Options{})
	h.spare = newSpare(proc, h.self, exempt)
	w := walk{proc: proc, found: func(pid, tid int, link []byte) error {
		if !bytes.Equal(link, h.want) || h.spare.why(pid) != "" || mayTrace(tid) {
			return nil
		}
		if st, ok := proc.status(tid); !ok || st.dead() {
			return nil
		}
		return h.blame(&member{pid: pid, tid: tid}, explainSeize(unix.EPERM))
	}}
	err = w.run(ctx)
	return w.unreadable, err
}

// Release lets all tasks go. The signals that arrived meanwhile are delivered,
// a job-stopped task stays stopped unless it got SIGCONT. When it returns no
// task is traced by the caller any more. A second Release does nothing and
// returns what the first did. It fails only if a tracing thread does not end,
// which then leaves tasks stopped that had been frozen by their cgroup.
func (s *Stopped) Release() error { return s.end() }

// Holds reports whether a process is one whose tasks in the namespace stand still, as
// far as All knew them.
func (s *Stopped) Holds(pid int) bool { return s.processes[pid] }

// Report returns what All found. It stays valid after Release.
func (s *Stopped) Report() Report { return s.report }
