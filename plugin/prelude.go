package plugin

import (
	"context"
	"errors"
	"slices"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// prelude is what every operation begins with: putting right what a killed
// ipc-cr left, and looking at the namespace from outside. It is done by a
// goroutine of its own, beside the look at the images by the operation's thread.
// That thread does all the rest, in the namespace from the beginning: to hand
// work from one thread to another costs more than most of the steps.
type prelude struct {
	done      chan struct{}
	target    *target
	recovered []string
	err       error

	// For a restore, which keeps a record in the state directory:
	openState func() (*state.Dir, error)
	dir       *state.Dir
	dirErr    error

	identify func(*nsenter.Namespace) (nsenter.Identity, error)
}

func newPrelude() *prelude {
	return &prelude{done: make(chan struct{}), identify: (*nsenter.Namespace).Identity}
}

func (p *prelude) run(ctx context.Context, ns *nsenter.Namespace) {
	defer close(p.done)
	p.recovered = recoverState(ctx)
	p.target, p.err = newTarget(ns, p.identify)
	if p.openState != nil {
		p.dir, p.dirErr = p.openState()
	}
}

// recoverState puts right what the dead left in the state directory, if there is
// one, and tells of it.
func recoverState(ctx context.Context) []string {
	dir, err := state.Existing()
	if errors.Is(err, state.ErrNowhere) {
		return nil
	}
	if err != nil {
		return []string{err.Error()}
	}
	defer dir.Close()
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

// end waits until the prelude no longer uses the namespace.
func (p *prelude) end() { <-p.done }

// owner is wait for who needs the owner alone.
func (p *prelude) owner() (*nsenter.Owner, error) {
	t, err := p.wait()
	if err != nil {
		return nil, err
	}
	return t.Owner, nil
}

// wait may be called again. It must come before anything is read in the
// namespace: a limit may just be being put back.
func (p *prelude) wait() (*target, error) {
	<-p.done
	return p.target, p.err
}
