package msgq

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// behindFrom is how many bytes a queue must hold for a second thread to be worth
// its start.
const behindFrom = 1 << 20

// So many blocks go around: one is being filled, one written, and the others wait.
// With three those who fill and write sleep for each other so often that a queue
// of 500 x 64 KiB takes 1.5 to 2 times as long. Where they grow large, by long
// messages, they become fewer, until there are three.
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

// blocksFor is how many blocks a queue begins with.
func blocksFor(q *kernel.Queue) int {
	if q.CBytes/max(q.QNum, 1) > largeBlock {
		return fewestBlocks
	}
	return mostBlocks
}

// newBehind takes over the blocks that went around for the queue before.
func newBehind(out *ordered, share, blocks int, spare []*images.Block) *behind {
	b := &behind{
		out: out, share: share, blocks: blocks,
		full: make(chan parcel, mostBlocks),
		free: make(chan *images.Block, mostBlocks),
	}
	for i := range blocks - 1 {
		if i < len(spare) {
			b.free <- spare[i]
		} else {
			b.free <- &images.Block{}
		}
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
		p.block.Reset()
		if p.block.Cap() > largeBlock && b.blocks > fewestBlocks {
			b.blocks--
			select {
			case <-b.free: // rather one that has not grown yet
			default:
				continue
			}
		}
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

// spare returns the blocks that are left, after finish: to touch fresh memory for
// each queue costs more, and grows until it is collected.
func (b *behind) spare() (blocks []*images.Block) {
	close(b.free)
	for block := range b.free {
		blocks = append(blocks, block)
	}
	return blocks
}
