package msgq

import (
	"io"
	"slices"

	"github.com/ipc-cr/ipc-cr/images"
)

// ordered lets threads that work on numbered shares write them in the order of
// the numbers. Shares are handed out in that order, so the one whose turn it is
// always has a thread that works on it, and nobody holds more than what it has
// not yet written: memory is bounded by the number of threads.
type ordered struct {
	*turns
	w      io.Writer
	pieces images.Details
}

func newOrdered(w io.Writer) *ordered { return &ordered{turns: newTurns(), w: w} }

// myTurn reports whether write would not wait.
func (o *ordered) myTurn(share int) bool { return o.passed(share) }

// write writes a part of a share when all before it are done.
func (o *ordered) write(share int, b []byte) error {
	if err := o.wait(share); err != nil {
		return err
	}
	_, err := o.w.Write(b) // nobody else writes until pass
	return err
}

// summedWriter is a writer that wants to be told of a checksum that is known.
type summedWriter interface {
	WriteSummed(b []byte, from int, sum uint32) error
}

// writeSummed is write for a block of which a part is summed up.
func (o *ordered) writeSummed(share int, p parcel) error {
	w, ok := o.w.(summedWriter)
	if !ok {
		return o.write(share, p.block.Bytes())
	}
	if err := o.wait(share); err != nil {
		return err
	}
	return w.WriteSummed(p.block.Bytes(), p.mark, p.sum)
}

// pass ends a share whose turn it is. lines are its lines of the JSON file, each
// with a comma in front.
func (o *ordered) pass(lines []byte) {
	if len(lines) > 0 {
		o.pieces = append(o.pieces, lines)
	}
	o.next()
}

// details returns the lines of all shares, of which there must be one, as a JSON
// list.
func (o *ordered) details() images.Details {
	o.pieces[0] = o.pieces[0][1:] // the comma separates two lines
	return slices.Concat(images.Details{[]byte("[")}, o.pieces, images.Details{[]byte("\n    ]")})
}
