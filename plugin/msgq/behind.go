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

// So many blocks go around: one is being filled, one written, and the others wait.
// With three those who fill and write sleep for each other so often that a queue
// of 500 x 64 KiB takes 1.5 to 2 times as long. Those that grew large, by a long
// message, are not used again, until there are three.
const (
	fewestBlocks = 3
	mostBlocks   = 6
	largeBlock   = holdAt / mostBlocks
)

// behind writes what is copied of one large queue, in a goroutine of its own while
// the copy goes on: to write takes about as long as to copy. It does not sum up: a
// block is still in the cache of the processor that copied it.
type behind struct {
	out    *ordered
	share  int
	full   chan parcel
	free   chan *images.Block
	blocks int // that go around, run's own
	ended  sync.WaitGroup
	failed atomic.Bool
	err    error // for finish, when the goroutine has ended
}

// parcel is a block with where in it the queue's messages begin, and their
// checksum.
type parcel struct {
	block *images.Block
	mark  int
	sum   uint32
}

func newBehind(out *ordered, share int) *behind {
	b := &behind{
		out: out, share: share, blocks: mostBlocks,
		full: make(chan parcel, mostBlocks),
		free: make(chan *images.Block, mostBlocks),
	}
	for range mostBlocks - 1 {
		b.free <- &images.Block{}
	}
	b.ended.Go(b.run)
	return b
}

// run goes on after an error, so that nobody waits for a block in vain.
func (b *behind) run() {
	for p := range b.full {
		if b.err == nil {
			b.err = b.out.writeSummed(b.share, p)
			b.failed.Store(b.err != nil)
		}
		if p.block.Cap() > largeBlock && b.blocks > fewestBlocks {
			b.blocks--
			continue
		}
		p.block.Reset()
		b.free <- p.block
	}
}

// errBehind stops the copy where finish tells what failed.
var errBehind = errors.New("a write failed")

// swap takes a block to write and returns an empty one.
func (b *behind) swap(p parcel) (*images.Block, error) {
	b.full <- p
	block := <-b.free
	if b.failed.Load() {
		return block, errBehind
	}
	return block, nil
}

// finish waits until all is written.
func (b *behind) finish() error {
	close(b.full)
	b.ended.Wait()
	return b.err
}
