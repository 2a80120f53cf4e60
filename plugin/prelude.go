package plugin

import (
	"context"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
)

// prelude is what every operation begins with, under way beside the look at the
// images: putting right what a killed ipc-cr left, and looking at the namespace.
type prelude struct {
	done      chan struct{}
	target    *target
	recovered []string
	err       error
}

// begin starts the prelude. Its wait must be called before the operation ends,
// because the namespace is in use until then.
func begin(ctx context.Context, ns *nsenter.Namespace) *prelude {
	p := &prelude{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		recovery := guard.Recover(ctx)
		p.recovered = append(recovery.Done, recovery.Warnings...)
		p.target, p.err = newTarget(ns)
	}()
	return p
}

// wait may be called again. It must come before anything is read in the
// namespace: a limit may just be being put back.
func (p *prelude) wait() (*target, error) {
	<-p.done
	return p.target, p.err
}
