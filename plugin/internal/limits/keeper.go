// Package limits raises limits of an IPC namespace for the time of one
// operation and puts them back, whatever happens to ipc-cr meanwhile (package
// guard).
//
// It is not for the host's namespace, whose limits ipc-cr never changes: see
// Forbid.
package limits

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Change is a limit that was raised for a moment.
type Change struct {
	Name   string `json:"sysctl"`
	Old    int64  `json:"was"`
	Raised int64  `json:"raised_to"` // the last value, if it was raised several times
}

// ErrForbidden marks a change of a limit that Forbid has ruled out.
var ErrForbidden = errors.New("ipc-cr does not change it")

// Keeper keeps the limits of one namespace during one operation. Its methods may
// be called from several goroutines at once.
type Keeper struct {
	ns    *nsenter.Namespace
	space kernel.Space

	mu        sync.Mutex
	forbidden string // why nothing may change, empty if it may
	unshared  bool
	wait      time.Duration // for another ipc-cr that has raised limits
	raised    guard.Things  // what is to be put back
	changes   map[string]Change
	guard     *guard.Guard
	dir       *state.Dir

	openState func() (*state.Dir, error)
}

// NewKeeper makes a Keeper of the namespace ns, of which space is what calls are
// made in. Both must stay open until PutBack.
func NewKeeper(ns *nsenter.Namespace, space kernel.Space) *Keeper {
	return &Keeper{ns: ns, space: space, wait: turnTimeout, changes: map[string]Change{}, openState: state.Default}
}

// turnTimeout is how long Raise waits for another ipc-cr.
const turnTimeout = time.Minute

// Hurry has Raise wait for nobody: tasks are frozen meanwhile.
func (k *Keeper) Hurry() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wait = 0
}

// Unshared says that the namespace is fresh, so that nobody else can reach it
// and it ends with this process: its limits need no guard. Call it before Raise.
func (k *Keeper) Unshared() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unshared = true
}

// Forbid makes every change an error that matches ErrForbidden and gives the
// reason, such as "limits of the host's IPC namespace". Call it before Raise.
func (k *Keeper) Forbid(reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forbidden = reason
}

// Raise sees to it that a limit, a sysctl that holds one number, is at least
// that for now. What it changes PutBack changes back, or the guard if this
// process dies. kn is the calling thread's. It needs the right to write the
// sysctl: euid 0 of the user namespace that owns the IPC namespace, which kn
// takes care of.
//
// The first change starts the guard. Where another ipc-cr has raised a limit of
// the namespace, it waits up to a minute until that has put it back, see Hurry.
func (k *Keeper) Raise(kn kernel.Kernel, name string, atLeast int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	current, err := guard.ReadSysctl(kn, name)
	if err != nil {
		return fmt.Errorf("raise a limit: %w", err)
	}
	if current >= atLeast {
		return nil
	}
	if k.forbidden != "" {
		return k.forbiddenError(name, current, atLeast)
	}
	if err := k.raise(kn, name, atLeast); err != nil {
		return fmt.Errorf("raise %s from %d to %d: %w", name, current, atLeast, err)
	}
	return nil
}

func (k *Keeper) forbiddenError(name string, current, wanted int64) error {
	return fmt.Errorf("%s is %d, %d is needed: %w (%s): run sysctl %s=%d first",
		name, current, wanted, ErrForbidden, k.forbidden, name, wanted)
}

// May reports, by its error, whether Raise of that limit is ruled out by Forbid.
func (k *Keeper) May(kn kernel.Kernel, name string, atLeast int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.forbidden == "" {
		return nil
	}
	current, err := guard.ReadSysctl(kn, name)
	if err != nil || current >= atLeast {
		return err
	}
	return k.forbiddenError(name, current, atLeast)
}

// raise guards first, then changes. The value is read when the guard has its
// turn: before that it may be one that another ipc-cr is going to put back.
func (k *Keeper) raise(kn kernel.Kernel, name string, atLeast int64) error {
	if err := k.startGuard(); err != nil {
		return err
	}
	current, err := guard.ReadSysctl(kn, name)
	if err != nil || current >= atLeast {
		return err
	}
	old, ours := k.raised.Under(name, current)
	if !ours {
		old = current
	}
	change := guard.Sysctl{Name: name, Old: old, Raised: atLeast}
	wanted := guard.Things{Sysctls: append(slices.Clone(k.raised.Sysctls), change)}
	if err := k.watch(wanted); err != nil {
		return err
	}
	if err := kn.SetSysctl(name, atLeast); err != nil {
		return errors.Join(err, k.watch(k.raised))
	}
	k.raised = wanted
	k.changes[name] = Change{Name: name, Old: old, Raised: atLeast}
	return nil
}

// Keep gives a limit its final value, which PutBack leaves alone. The limit need
// not have been raised before. Privilege as for Raise.
func (k *Keeper) Keep(kn kernel.Kernel, name string, value int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	current, err := guard.ReadSysctl(kn, name)
	if err != nil {
		return fmt.Errorf("set a limit: %w", err)
	}
	if current != value && k.forbidden != "" {
		return k.forbiddenError(name, current, value)
	}
	if current != value {
		if err := kn.SetSysctl(name, value); err != nil {
			return fmt.Errorf("set %s from %d to %d: %w", name, current, value, err)
		}
	}
	return k.forget(name)
}

// forget takes a limit away from the guard. Killed before that, it is put back
// as if it had not been kept: a second run of the operation completes it.
func (k *Keeper) forget(name string) error {
	rest := slices.DeleteFunc(slices.Clone(k.raised.Sysctls), func(c guard.Sysctl) bool { return c.Name == name })
	delete(k.changes, name)
	if len(rest) == len(k.raised.Sysctls) {
		return nil
	}
	k.raised = guard.Things{Sysctls: rest}
	return k.watch(k.raised)
}

// Changes returns what was raised and not kept, put back or not, by name.
func (k *Keeper) Changes() []Change {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]Change, 0, len(k.changes))
	for _, change := range k.changes {
		list = append(list, change)
	}
	slices.SortFunc(list, func(a, b Change) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
