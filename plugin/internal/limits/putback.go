package limits

import (
	"errors"
	"fmt"

	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// PutBack gives every limit that was raised and not kept its old value again,
// unless somebody else has changed it meanwhile, and releases the guard. It may
// be called again; the Keeper can go on after it. The error names each limit,
// its value and what to do; then the guard stays, and tries when this process
// ends.
func (k *Keeper) PutBack() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.raised.PutBack(k.space); err != nil {
		return err
	}
	k.raised = guard.Things{}
	return k.releaseGuard()
}

// GuardPID is the guard's process id, 0 if there is none: for those that stop the
// tasks of the namespace, because a stopped guard does not answer.
func (k *Keeper) GuardPID() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.guard == nil {
		return 0
	}
	return k.guard.PID()
}

// startGuard starts the guard if one is needed and there is none.
func (k *Keeper) startGuard() error {
	if k.unshared || k.guard != nil {
		return nil
	}
	dir, err := k.openState()
	if err != nil && !errors.Is(err, state.ErrNowhere) {
		return err
	}
	g, err := guard.Start(k.ns, dir, k.wait) // without a note where there is no place for one
	if err != nil {
		return errors.Join(err, closeState(dir))
	}
	k.guard, k.dir = g, dir
	return nil
}

// watch makes these the things that the guard puts back.
func (k *Keeper) watch(things guard.Things) error {
	if k.guard == nil {
		return nil
	}
	return k.guard.Set(things)
}

func (k *Keeper) releaseGuard() error {
	if k.guard == nil {
		return nil
	}
	err := errors.Join(k.guard.Release(), closeState(k.dir))
	k.guard, k.dir = nil, nil
	if err != nil {
		return fmt.Errorf("release the guard over %s: %w", k.ns, err)
	}
	return nil
}

func closeState(dir *state.Dir) error {
	if dir == nil {
		return nil
	}
	return dir.Close()
}
