package msgq

import (
	"errors"
	"sync"
)

// errStopped is the error of a thread that gave up because another one failed.
var errStopped = errors.New("stopped because another thread failed")

// turns counts the shares that are done with, for threads that wait for one.
type turns struct {
	mu     sync.Mutex
	moved  *sync.Cond
	done   int
	failed bool
}

func newTurns() *turns {
	t := &turns{}
	t.moved = sync.NewCond(&t.mu)
	return t
}

// wait waits until so many shares are done with.
func (t *turns) wait(shares int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.done < shares && !t.failed {
		t.moved.Wait()
	}
	if t.failed {
		return errStopped
	}
	return nil
}

// passed reports whether wait would not wait.
func (t *turns) passed(shares int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done >= shares
}

// next counts one more.
func (t *turns) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done++
	t.moved.Broadcast()
}

// fail wakes everybody up.
func (t *turns) fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
	t.moved.Broadcast()
}
