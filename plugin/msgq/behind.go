package msgq

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ipc-cr/ipc-cr/images"
)

// behindFrom is how many bytes a queue must hold for a second thread to be worth
// its start.
const behindFrom = 1 << 20

// behindBlocks is how many blocks go around: one is being filled, one written.
const behindBlocks = 3

// behind sums up and writes what is copied of one large queue, in a goroutine of
// its own while the copy goes on: to write takes about as long as to copy.
type behind struct {
	out    *ordered
	share  int
	full   chan parcel
	free   chan *images.Block
	ended  sync.WaitGroup
	failed atomic.Bool

	// For finish, when the goroutine has ended.
	sum uint32
	err error
}

// parcel is a block with where in it the queue's messages begin.
type parcel struct {
	block *images.Block
	mark  int
}

func newBehind(out *ordered, share int) *behind {
	b := &behind{
		out: out, share: share,
		full: make(chan parcel, behindBlocks),
		free: make(chan *images.Block, behindBlocks),
	}
	for range behindBlocks - 1 {
		b.free <- &images.Block{}
	}
	b.ended.Go(b.run)
	return b
}

// run goes on after an error, so that nobody waits for a block in vain.
func (b *behind) run() {
	for p := range b.full {
		if b.err == nil {
			b.err = b.out.writeQueue(b.share, p.block, p.mark, &b.sum)
			b.failed.Store(b.err != nil)
		}
		p.block.Reset()
		b.free <- p.block
	}
}

// errBehind stops the copy where finish tells what failed.
var errBehind = errors.New("a write failed")

// swap takes a block to write and returns an empty one.
func (b *behind) swap(block *images.Block, mark int) (*images.Block, error) {
	b.full <- parcel{block, mark}
	block = <-b.free
	if b.failed.Load() {
		return block, errBehind
	}
	return block, nil
}

// finish waits until all is written and returns the checksum of the messages.
func (b *behind) finish() (uint32, error) {
	close(b.full)
	b.ended.Wait()
	return b.sum, b.err
}
