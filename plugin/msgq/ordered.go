package msgq

import (
	"errors"
	"io"
	"sync"
)

// errStopped is the error of a thread that gave up because another one failed.
var errStopped = errors.New("stopped because another thread failed")

// ordered lets threads that work on numbered shares write them in the order of
// the numbers. Shares are handed out in that order, so the one whose turn it is
// always has a thread that works on it, and nobody holds more than what it has
// not yet written: memory is bounded by the number of threads.
type ordered struct {
	w io.Writer

	mu      sync.Mutex
	turned  *sync.Cond
	turn    int
	failed  bool
	details []byte
}

func newOrdered(w io.Writer) *ordered {
	o := &ordered{w: w}
	o.turned = sync.NewCond(&o.mu)
	return o
}

// write writes a part of a share when it is that share's turn.
func (o *ordered) write(share int, b []byte) error {
	o.mu.Lock()
	for o.turn != share && !o.failed {
		o.turned.Wait()
	}
	failed := o.failed
	o.mu.Unlock()
	if failed {
		return errStopped
	}
	_, err := o.w.Write(b) // nobody else writes until pass
	return err
}

// pass ends a share whose turn it is.
func (o *ordered) pass(details []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.details == nil {
		o.details = []byte{'['}
		details = details[1:] // the comma between two
	}
	o.details = append(o.details, details...)
	o.turn++
	o.turned.Broadcast()
}

// end closes the list of details.
func (o *ordered) end() []byte { return append(o.details, "\n    ]"...) }

// fail wakes everybody up.
func (o *ordered) fail(error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = true
	o.turned.Broadcast()
}
