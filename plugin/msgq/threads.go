package msgq

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// share is a run of queues that one thread works on.
type share struct {
	number   int
	from, to int
}

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

// worker works on shares on one thread.
type worker interface {
	work(kernel.Kernel, share) error
}

// onThreads hands out the shares in their order: to the calling thread, whose
// kernel is k, and to others where there is more than one share. fail is told
// of the first error, to wake those who wait.
func onThreads(k kernel.Kernel, space kernel.Space, shares []share, hire func() worker, fail func(error)) error {
	var next atomic.Int64
	run := func(k kernel.Kernel) error {
		w := hire()
		for {
			i := int(next.Add(1)) - 1
			if i >= len(shares) {
				return nil
			}
			if err := w.work(k, shares[i]); err != nil {
				next.Store(int64(len(shares)))
				fail(err)
				return err
			}
		}
	}

	helpers := min(runtime.GOMAXPROCS(0), len(shares)) - 1
	errs := make([]error, max(helpers, 0))
	var wg sync.WaitGroup
	for i := range helpers {
		wg.Go(func() { errs[i] = space.Run(run) })
	}
	err := run(k)
	wg.Wait()
	return firstError(append(errs, err))
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
