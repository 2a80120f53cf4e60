package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// lockWait is how long another process that stops the tasks is waited for: the
// hook does while CRIU copies.
const lockWait = time.Minute

// hold is the tasks of a namespace, stopped. A nil hold holds nobody.
type hold struct {
	lock  *freeze.Lock
	tasks *freeze.Stopped
	// spares tells who runs on and uses no objects.
	spares func(pid int) bool
	since  time.Time
	still  *atomic.Bool // true while they are stopped

	once sync.Once // for release, and what it found:
	took time.Duration
	err  error
}

// lock waits for the right to stop the tasks, while they run.
func (t *target) lock(ctx context.Context) (*freeze.Lock, error) {
	lock, err := freeze.TakeLock(ctx, t.ns.Fd(), lockWait)
	if err != nil {
		return nil, fmt.Errorf("stop the tasks of %s: %w", t.ns, err)
	}
	return lock, nil
}

// stop stops every task of the target's namespace, except what exempt reports.
// The lock is released with them, or on an error.
func (t *target) stop(ctx context.Context, lock *freeze.Lock, exempt func(pid int) bool) (*hold, error) {
	h := &hold{lock: lock, since: time.Now(), still: &t.still}
	h.still.Store(true)
	h.spares = t.spares(exempt)
	tasks, err := freeze.All(ctx, t.ns.Inode(), freeze.Options{Exempt: h.spares})
	if err != nil {
		h.still.Store(false)
		return nil, errors.Join(err, lock.Release())
	}
	h.tasks = tasks
	if since := tasks.Report().Since; !since.IsZero() {
		h.since = since
	}
	if n := tasks.Report().Unreadable; n > 0 && !mayTrace() {
		err := fmt.Errorf("stop the tasks of %s: %d tasks cannot be looked at and may live in it: needs CAP_SYS_PTRACE: %w", t.ns, n, unix.EPERM)
		return nil, errors.Join(err, h.release())
	}
	return h, nil
}

// spares adds to those whom the caller exempts.
func (t *target) spares(exempt func(pid int) bool) func(pid int) bool {
	var criu beside.Family
	return func(pid int) bool {
		return pid == t.Limits.GuardPID() || exempt != nil && exempt(pid) || criu.Has(pid)
	}
}

// mayTrace tells whether the tasks that cannot be looked at are those of other
// user namespaces alone, see doubt, or protected from everybody.
func mayTrace() bool {
	held, err := linux.Capabilities()
	return err == nil && held&(1<<unix.CAP_SYS_PTRACE) != 0
}

// release lets the tasks go, once. It may be called from several goroutines.
func (h *hold) release() error {
	if h == nil {
		return nil
	}
	h.once.Do(func() {
		err := h.tasks.Release()
		h.took = time.Since(h.since)
		h.still.Store(false)
		h.err = errors.Join(err, h.lock.Release())
	})
	return h.err
}

// doubt is what has to be proved of a copy that was made while the tasks stood still.
type doubt int

const (
	// sure: nobody can have used an object.
	sure doubt = iota
	// unsure: somebody may, whom we cannot see; nobody who is held.
	unsure
	// unstopped: tasks of the namespace run or may run, known ones or unseen.
	unstopped
)

// doubt tells how sure it is that nobody runs.
func (h *hold) doubt() doubt {
	r := h.tasks.Report()
	mayRun := func(t freeze.Task) bool { return !h.spares(t.PID) }
	switch {
	case r.Unseen, slices.ContainsFunc(h.loose(), mayRun):
		return unstopped
	case r.Unreadable > 0 && !nsenter.InInitialUserNS(): // those of the user namespaces around may have entered
		return unsure
	}
	return sure
}

// loose returns the tasks of the namespace that may run in spite of all. This
// process may, but sends and receives nothing.
func (h *hold) loose() []freeze.Task {
	return slices.DeleteFunc(slices.Clone(h.tasks.Report().Loose), func(t freeze.Task) bool { return t.Why == freeze.WhySelf })
}

// report returns what was stopped, nil for nobody.
func (h *hold) report() *Frozen {
	if h == nil {
		return nil
	}
	r := h.tasks.Report()
	f := &Frozen{Tasks: r.Tasks, Unreadable: r.Unreadable, Unseen: r.Unseen, Duration: h.took}
	for _, task := range h.loose() {
		f.Loose = append(f.Loose, fmt.Sprintf("task %q (pid %d, tid %d): %s", task.Name, task.PID, task.TID, task.Why))
	}
	return f
}

// Frozen tells which tasks of a namespace were stopped, and for how long.
type Frozen struct {
	Tasks      int           `json:"tasks"`                // stopped threads
	Duration   time.Duration `json:"duration_ns"`          // from the first one stopped to the last one let go
	Unreadable int           `json:"unreadable,omitempty"` // tasks of which could not be read where they live
	Unseen     bool          `json:"unseen,omitempty"`     // tasks were born and ended too fast to be looked at
	Loose      []string      `json:"loose,omitempty"`      // tasks of the namespace that were not ours to stop
}
