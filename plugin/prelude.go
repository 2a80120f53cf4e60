package plugin

import (
	"context"
	"errors"
	"slices"

	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// prelude is what every operation begins with: putting right what a killed
// ipc-cr left. It is done by a goroutine of its own, while the operation's thread
// looks at the namespace from outside and at the images. That thread does all the
// rest, in the namespace from the beginning: to hand work from one thread to
// another costs more than most of the steps.
type prelude struct {
	done      chan struct{}
	recovered []string

	// For a restore, which keeps a record in the state directory:
	openState func() (*state.Dir, error)
	dir       *state.Dir
	dirErr    error
}

func newPrelude() *prelude { return &prelude{done: make(chan struct{})} }

func (p *prelude) run(ctx context.Context) {
	defer close(p.done)
	if p.openState != nil {
		p.dir, p.dirErr = p.openState()
		p.recovered = recoverState(ctx, p.dir, p.dirErr)
		return
	}
	dir, err := state.Existing()
	p.recovered = recoverState(ctx, dir, err)
	if err == nil {
		_ = dir.Close()
	}
}

// recoverState puts right what the dead left in the state directory, if there is
// one, and tells of it.
func recoverState(ctx context.Context, dir *state.Dir, err error) []string {
	if errors.Is(err, state.ErrNowhere) {
		return nil
	}
	if err != nil {
		return []string{err.Error()}
	}
	names, err := dir.Names()
	if err != nil {
		return []string{err.Error()}
	}
	guards := guard.Recover(ctx, dir, names)
	wardens := warden.Recover(ctx, dir, names)
	return slices.Concat(guards.Done, guards.Warnings, wardens.Done, wardens.Warnings)
}

// state returns the state directory.
func (p *prelude) state() (*state.Dir, error) {
	<-p.done
	return p.dir, p.dirErr
}

// sweep removes the records of dead namespaces, beside the operation.
func (p *prelude) sweep() {
	if p.dir != nil {
		record.Sweep(p.dir)
	}
}

func (p *prelude) close() error {
	if p.dir == nil {
		return nil
	}
	return p.dir.Close()
}

// wait may be called again. It must come before anything is read in the
// namespace: a limit may just be being put back.
func (p *prelude) wait() { <-p.done }
