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
	sum    uint32  // of what was written
}

// full is called with each message more. It writes the block if that is full,
// and returns the block for the next.
func (w *writer) full(block *images.Block) (*images.Block, error) {
	length := block.Len()
	if length < flushAt {
		return block, nil
	}
	mark := w.mark
	if w.behind != nil {
		w.mark = 0
		return w.behind.swap(block, mark)
	}
	if length < holdAt && !w.out.myTurn(w.share) {
		return block, nil
	}
	w.mark = 0
	err := w.out.writeQueue(w.share, block, mark, &w.sum)
	block.Reset()
	return block, err
}

// finish returns the checksum of all messages. The last of them stay in the
// block.
func (w *writer) finish(block *images.Block) (sum uint32, err error) {
	sum = w.sum
	if w.behind != nil {
		sum, err = w.behind.finish()
	}
	if err != nil {
		return 0, err
	}
	return images.Checksum(sum, block.Bytes()[w.mark:]), nil
}
