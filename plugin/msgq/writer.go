package msgq

import (
	"github.com/ipc-cr/ipc-cr/images"
)

// A thread writes what it has copied in pieces of flushAt bytes: small enough to
// stay in the processor's cache, and not to touch much fresh memory, which costs
// more than the copying. While it is another one's turn to write, it goes on up
// to holdAt.
const (
	flushAt = 64 << 10
	holdAt  = 1 << 20
)

// writer writes the messages of one queue and keeps their checksum.
type writer struct {
	out    *ordered
	share  int
	behind *behind // nil for a small queue
	mark   int     // where in the block the queue's messages begin
	sum    uint32  // of what was written, or is going to be
}

// full is called with each message more. It writes the block if that is full,
// and returns the block for the next.
func (w *writer) full(block *images.Block) (*images.Block, error) {
	length := block.Len()
	if length < flushAt {
		return block, nil
	}
	if w.behind != nil {
		return w.behind.swap(w.parcel(block))
	}
	if length < holdAt && !w.out.myTurn(w.share) {
		return block, nil
	}
	err := w.out.writeSummed(w.share, w.parcel(block))
	block.Reset()
	return block, err
}

// parcel takes a block's messages into the checksum. The next block has nothing
// else in it.
func (w *writer) parcel(block *images.Block) parcel {
	messages := block.Bytes()[w.mark:]
	p := parcel{block, w.mark, images.Checksum(0, messages)}
	w.sum = images.JoinChecksums(w.sum, p.sum, len(messages))
	w.mark = 0
	return p
}

// finish returns the checksum of all messages. The last of them stay in the
// block.
func (w *writer) finish(block *images.Block) (sum uint32, err error) {
	if w.behind != nil {
		if err := w.behind.finish(); err != nil {
			return 0, err
		}
	}
	return images.Checksum(w.sum, block.Bytes()[w.mark:]), nil
}
