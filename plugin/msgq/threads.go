package msgq

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// share is a run of queues, or of slots, that one thread works on.
type share struct {
	number   int
	from, to int
}

// A share of queues is of about this size: large enough to be worth a write,
// small enough to keep several threads busy.
const (
	shareBytes    = 128 << 10
	shareQueues   = 256
	shareMessages = 1024
)

// split cuts n queues into shares of about equal work.
func split(n int, load func(i int) (bytes, messages int)) []share {
	var shares []share
	current := share{}
	bytes, messages := 0, 0
	for i := range n {
		b, m := load(i)
		bytes, messages = bytes+b, messages+m
		current.to = i + 1
		if bytes >= shareBytes || messages >= shareMessages || current.to-current.from >= shareQueues {
			shares = append(shares, current)
			current = share{number: len(shares), from: i + 1, to: i + 1}
			bytes, messages = 0, 0
		}
	}
	if current.from < current.to {
		shares = append(shares, current)
	}
	return shares
}

// splitEvenly cuts n slots into shares of one size.
func splitEvenly(n, size int) []share {
	var shares []share
	for from := 0; from < n; from += size {
		shares = append(shares, share{number: len(shares), from: from, to: min(from+size, n)})
	}
	return shares
}

// work is what a thread does with a share. It is one thread's own, and may keep
// memory from one share to the next.
type work func(kernel.Kernel, share) error

// threads is how shares are worked on.
type threads struct {
	space kernel.Space
	// begin is called once on each thread.
	begin func() work
	// first, if not nil, runs on the calling thread before it takes shares.
	first func(kernel.Kernel) error
	// fail, if not nil, is called after each error, to wake those who wait.
	fail func()
}

// run hands out the shares in their order: to the calling thread, whose kernel
// is k, and to others where there is more than one share.
func (t *threads) run(k kernel.Kernel, shares []share) error {
	var next atomic.Int64
	helpers := max(min(runtime.GOMAXPROCS(0), len(shares))-1, 0)
	errs := make([]error, helpers+1)
	var wg sync.WaitGroup
	for i := range helpers {
		wg.Go(func() {
			errs[i] = t.space.Run(func(k kernel.Kernel) error { return t.take(k, shares, &next) })
		})
	}
	errs[helpers] = t.lead(k, shares, &next)
	wg.Wait()
	return firstError(errs)
}

// lead is what the calling thread does.
func (t *threads) lead(k kernel.Kernel, shares []share, next *atomic.Int64) error {
	if t.first != nil {
		if err := t.first(k); err != nil {
			return t.stop(err, shares, next)
		}
	}
	return t.take(k, shares, next)
}

// take works on shares until there are no more.
func (t *threads) take(k kernel.Kernel, shares []share, next *atomic.Int64) error {
	do := t.begin()
	for {
		i := int(next.Add(1)) - 1
		if i >= len(shares) {
			return nil
		}
		if err := do(k, shares[i]); err != nil {
			return t.stop(err, shares, next)
		}
	}
}

// stop lets nobody take another share.
func (t *threads) stop(err error, shares []share, next *atomic.Int64) error {
	next.Store(int64(len(shares)))
	if t.fail != nil {
		t.fail()
	}
	return err
}

// firstError prefers the error that stopped the others to theirs.
func firstError(errs []error) error {
	var stopped error
	for _, err := range errs {
		switch {
		case errors.Is(err, errStopped):
			stopped = err
		case err != nil:
			return err
		}
	}
	return stopped
}
