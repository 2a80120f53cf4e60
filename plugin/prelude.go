package plugin

import (
	"context"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
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
}

func newPrelude() *prelude { return &prelude{done: make(chan struct{})} }

func (p *prelude) run(ctx context.Context, ns *nsenter.Namespace) {
	defer close(p.done)
	recovery := guard.Recover(ctx)
	p.recovered = append(recovery.Done, recovery.Warnings...)
	p.target, p.err = newTarget(ns)
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
