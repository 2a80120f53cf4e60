package plugin

import (
	"cmp"
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
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/restoring"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// lockWait is how long another process that stops the tasks is waited for.
const lockWait = time.Minute

// glance is how long where tasks are frozen already: as long as one that sweeps up what
// the dead left looks at a lock.
const glance = 100 * time.Millisecond

// frozenLimit is how long the tasks of a namespace are stopped at most.
const frozenLimit = 10 * time.Second

// hold is the tasks of a namespace, stopped. A nil hold holds nobody.
type hold struct {
	lock  *freeze.Lock // nil where somebody else has it for us
	tasks *freeze.Stopped
	// uses reports whether a process may use the objects if it is not held.
	uses  func(pid int) bool
	began time.Time     // when it was begun to stop them
	limit time.Duration // for how long they are at most
	since time.Time     // when the first one was
	still *atomic.Bool  // true while they are stopped

	once sync.Once // for release, and what it found:
	took time.Duration
	err  error
}

// holding says how the tasks of a namespace are to be stopped.
type holding struct {
	exempt func(pid int) bool // the caller's
	dir    *state.Dir         // for the lock, nil without
	locked bool               // another process has the lock for us
	wait   time.Duration      // for the lock, and for tasks that CRIU is making
	limit  time.Duration      // for how long at most, 0 for frozenLimit
}

// freeze waits, while all tasks run, for the right to stop them, and stops every
// task of the namespace but those that need not be.
func (t *target) freeze(ctx context.Context, h holding) (*hold, error) {
	making := restoring.In(h.dir)
	if err := t.awaitRestored(ctx, making, h.wait); err != nil {
		return nil, err
	}
	var lock *freeze.Lock
	if !h.locked {
		var err error
		if lock, err = freeze.TakeLock(ctx, h.dir, t.ns, h.wait); err != nil {
			return nil, fmt.Errorf("stop the tasks of %s: %w", t.ns, err)
		}
	}
	var held *hold
	var err error
	if h.dir != nil && t.Limits.GuardPID() == 0 {
		err = guard.Await(ctx, t.ns, h.dir, h.wait)
	}
	if err == nil {
		held, err = t.stop(ctx, lock, h, making)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	t.Limits.Hurry()
	return held, nil
}

// awaitRestored waits for tasks that CRIU is restoring into the namespace and that
// are about to run: they cannot be stopped before they do. Others of a restore
// wait for their turn at this namespace themselves, and are spared.
func (t *target) awaitRestored(ctx context.Context, making *restoring.Runs, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; {
		run, found, err := t.aboutToRun(making)
		if err != nil || !found {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stop the tasks of %s: CRIU, %s, is restoring some of them, still after %v: try again when it has ended", t.ns, run.CRIU, wait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for CRIU, %s, which is restoring tasks in %s: %w", run.CRIU, t.ns, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// aboutToRun finds a task of the namespace that CRIU is making, and whose objects
// are restored.
func (t *target) aboutToRun(making *restoring.Runs) (run restoring.Run, found bool, err error) {
	if !making.Any() {
		return run, false, nil
	}
	tasks, _, err := nsenter.Tasks(t.ns)
	for _, task := range tasks {
		if run, found = making.Making(task.PID); found && run.Answered {
			return run, true, nil
		}
	}
	return run, false, err
}

// stop stops every task of the target's namespace, except those that are spared.
func (t *target) stop(ctx context.Context, lock *freeze.Lock, how holding, making *restoring.Runs) (*hold, error) {
	idle := t.idle(how.exempt)
	spared := func(pid int) bool {
		if idle(pid) {
			return true
		}
		_, made := making.Making(pid)
		return made
	}
	now := time.Now()
	limit := cmp.Or(how.limit, frozenLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("tasks are frozen for %v at most, and to stop them takes longer", limit))
	defer cancel()
	h := &hold{lock: lock, began: now, since: now, limit: limit, still: &t.still, uses: func(pid int) bool { return !idle(pid) }}
	h.still.Store(true)
	tasks, err := freeze.All(ctx, t.ns.Inode(), freeze.Options{Exempt: spared, Limit: limit})
	if err != nil {
		h.still.Store(false)
		return nil, err
	}
	h.tasks = tasks
	if since := tasks.Report().Since; !since.IsZero() {
		h.since = since
	}
	if err := t.seesAll(tasks.Report().Unreadable); err != nil {
		h.lock = nil // it is the caller's, on an error
		return nil, errors.Join(err, h.release())
	}
	return h, nil
}

// idle returns what reports the processes that use no object: those that the
// caller exempts, and ours.
func (t *target) idle(exempt func(pid int) bool) func(pid int) bool {
	var criu beside.Family
	return func(pid int) bool {
		return pid == t.Limits.GuardPID() || exempt != nil && exempt(pid) || criu.Has(pid)
	}
}

// seesAll refuses where tasks cannot be looked at because of a missing right.
func (t *target) seesAll(unreadable int) error {
	if unreadable == 0 || mayTrace() {
		return nil
	}
	return fmt.Errorf("stop the tasks of %s: %d tasks cannot be looked at and may live in it: needs CAP_SYS_PTRACE: %w", t.ns, unreadable, unix.EPERM)
}

// mayTrace reports whether the tasks that cannot be looked at are those of other
// user namespaces alone, see doubt, or protected from everybody.
func mayTrace() bool {
	held, err := linux.Capabilities()
	return err == nil && held&(1<<unix.CAP_SYS_PTRACE) != 0
}

// bound returns a context that ends when the tasks have been stopped for as long
// as they may, with an error that says what took too long. They are let go then,
// whatever the caller is doing: one that sleeps in a system call, on a file system
// that does not answer, does not look at a context. end is to be called when
// nothing needs the tasks to be stopped any more; its error is that of the
// context, if it had ended. Where nobody is held nothing ends.
func (h *hold) bound(ctx context.Context, what string) (bounded context.Context, end func() error) {
	if h == nil || !h.tasks.Report().Seized {
		return ctx, func() error { return nil }
	}
	cause := fmt.Errorf("the tasks were frozen for %v, which is the limit: %s", h.limit, what)
	bounded, cancel := context.WithDeadlineCause(ctx, h.began.Add(h.limit), cause)
	stop := context.AfterFunc(bounded, func() { _ = h.release() })
	return bounded, func() error {
		defer cancel()
		if stop() {
			return nil
		}
		return context.Cause(bounded)
	}
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

// doubt is what has to be proved of a copy that was made while the tasks were frozen.
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
	mayRun := func(t freeze.Task) bool { return h.uses(t.PID) }
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

// warnings tells what would not have been as promised.
func (h *hold) warnings() []string {
	if h == nil || h.tasks.Report().Unwatched == nil || !h.tasks.Report().Seized {
		return nil
	}
	return []string{fmt.Sprintf("nothing would have thawed the tasks if ipc-cr had been stopped itself: %v", h.tasks.Report().Unwatched)}
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
