package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	saves     []string // of these, what killed restores have saved

	settle    time.Duration // how long helpers of the dead are waited for
	openState func() (*state.Dir, error)
	dir       *state.Dir // nil without one, until close
	dirErr    error
}

// newPrelude is told how to open the state directory: state.Existing, or
// state.Default where something is going to be written there. Where it is urgent it
// waits for nobody.
func newPrelude(openState func() (*state.Dir, error), urgent bool) *prelude {
	p := &prelude{done: make(chan struct{}), openState: openState, settle: guard.SettleTime}
	if urgent {
		p.settle = 0
	}
	return p
}

func (p *prelude) run(ctx context.Context) {
	defer close(p.done)
	p.dir, p.dirErr = p.openState()
	p.recovered = recoverState(ctx, p.dir, p.dirErr, p.settle)
	p.saves = recoverSaves(p.dir, p.dirErr)
	p.recovered = append(p.recovered, p.saves...)
}

// recoverSaves tells of what killed restores have saved.
func recoverSaves(dir *state.Dir, err error) []string {
	if err != nil {
		return recoverTemporary().Warnings
	}
	names, err := dir.Names()
	if err != nil {
		return nil // recoverState tells of it
	}
	return recoverSaved(dir, names).Warnings
}

// alsoLeft adds to an error where messages are that an earlier restore has removed.
func (p *prelude) alsoLeft(err error) error {
	if len(p.saves) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s", err, strings.Join(p.saves, "; "))
}

// recoverState puts right what the dead left in the state directory, if there is
// one, and tells of it.
func recoverState(ctx context.Context, dir *state.Dir, err error, wait time.Duration) []string {
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
	guards := guard.Recover(ctx, dir, names, wait)
	wardens := warden.Recover(ctx, dir, names, wait)
	return slices.Concat(guards.Done, guards.Warnings, wardens.Done, wardens.Warnings)
}

// state returns the state directory.
func (p *prelude) state() (*state.Dir, error) {
	<-p.done
	return p.dir, p.dirErr
}

// locks returns the state directory as the place of locks, and of what has to
// outlive a killed ipc-cr; nil where there is none that can be used, of which recoverState
// warns. Then the namespace's own file is locked: all who find the directory so do that.
func (p *prelude) locks() *state.Dir {
	dir, err := p.state()
	if err != nil {
		return nil
	}
	return dir
}

// sweep removes the records of dead namespaces, beside the operation.
func (p *prelude) sweep() {
	if p.dir != nil {
		record.Sweep(p.dir)
	}
}

func (p *prelude) close() error {
	p.wait()
	if p.dir == nil {
		return nil
	}
	return p.dir.Close()
}

// wait may be called again. It must come before anything is read in the
// namespace: a limit may just be being put back.
func (p *prelude) wait() { <-p.done }
