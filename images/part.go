package images

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// PieceSize is how much of a file a Part reads at once.
const PieceSize = 128 << 10

// WholeSize is how much of a file may be held in memory whole.
const WholeSize = 2 << 20

// A Part holds some pieces. In front of each is room for what the piece before
// ended with: the first part of a message.
const (
	partRoom   = 68 << 10
	partPieces = 4
)

// aheadFrom is the length from which a second thread is worth its start.
const aheadFrom = 4 * PieceSize

// Part is a part of a file as a source for a [Reader], which takes the pieces it
// is read in as they are and copies nothing but a message that two of them
// share.
type Part struct {
	src      io.ReaderAt
	from, to int64

	mu      sync.Mutex
	changed *sync.Cond
	claimed int   // pieces that somebody reads, or has read
	taken   int   // pieces that the user has had
	err     error // of the last of them
	quit    bool
	helper  sync.WaitGroup
	pieces  [partPieces]*piece
	long    *[]byte // what is longer than a piece, joined; nil before the first
}

// piece is one of the memories that take turns.
type piece struct {
	memory [partRoom + PieceSize]byte
	n      int
	err    error
	state  atomic.Int32
}

// States of a piece.
const (
	pieceFree int32 = iota
	pieceReading
	pieceRead
)

// Memory is used again: to touch fresh memory costs more than to read into it.
var (
	pieces = sync.Pool{New: func() any { return new(piece) }}
	longs  = sync.Pool{New: func() any { return new([]byte) }}
)

// NewPart returns the part of src between two offsets. Close must be called.
func NewPart(src io.ReaderAt, from, to int64) *Part {
	t := &Part{src: src, from: from, to: to}
	t.changed = sync.NewCond(&t.mu)
	return t
}

// Ahead lets another thread read as well: whoever comes to a piece first reads
// it. Two threads read twice as fast as one from memory that no cache holds, and
// one reads while the user of what came before is busy in system calls. It does
// nothing where the part is small, or the program has one processor.
func (t *Part) Ahead() {
	if t.to-t.from >= aheadFrom && runtime.GOMAXPROCS(0) > 1 {
		t.helper.Go(t.help)
	}
}

// Whole reads the part at once, if it is no longer than WholeSize. What it returns
// is valid until Close.
func (t *Part) Whole() ([]byte, error) {
	size := int(t.to - t.from)
	data := t.room(size)
	n, err := t.src.ReadAt(data, t.from)
	if n < size {
		return nil, fmt.Errorf("%d of %d bytes: %w", n, size, shortRead(err))
	}
	return data, nil
}

// room returns memory for what Whole reads.
func (t *Part) room(size int) []byte {
	if size <= PieceSize {
		p := pieces.Get().(*piece)
		t.pieces[0] = p
		return p.memory[partRoom : partRoom+size]
	}
	t.long = longs.Get().(*[]byte)
	*t.long = slices.Grow((*t.long)[:0], size)[:size]
	return *t.long
}

// shortRead is the error of a read that gave less than a file should hold.
func shortRead(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // the file has shrunk
	}
	return err
}

// Close ends the reading. What the reader was given is no longer valid.
func (t *Part) Close() {
	t.mu.Lock()
	t.quit = true
	t.changed.Broadcast()
	t.mu.Unlock()
	t.helper.Wait()
	for _, p := range t.pieces {
		if p != nil {
			pieces.Put(p)
		}
	}
	if t.long != nil {
		longs.Put(t.long)
	}
}

func (t *Part) count() int { return int((t.to - t.from + PieceSize - 1) / PieceSize) }

func (t *Part) help() {
	for {
		number, ok := t.waitClaim()
		if !ok {
			return
		}
		t.read(number)
		t.mu.Lock()
		t.changed.Broadcast()
		t.mu.Unlock()
	}
}

// waitClaim is claim for who has nothing else to do than to wait for memory.
func (t *Part) waitClaim() (number int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.quit && t.claimed < t.count() && !t.free(t.claimed) {
		t.changed.Wait()
	}
	return t.begin()
}

// claim takes the next piece upon the caller, if there is one and memory for it.
func (t *Part) claim() (number int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.begin()
}

func (t *Part) free(number int) bool {
	p := t.pieces[number%partPieces]
	return p == nil || p.state.Load() == pieceFree
}

func (t *Part) begin() (number int, ok bool) {
	number = t.claimed
	if t.quit || number == t.count() || !t.free(number) {
		return 0, false
	}
	p := &t.pieces[number%partPieces]
	if *p == nil {
		*p = pieces.Get().(*piece)
	}
	(*p).state.Store(pieceReading)
	t.claimed++
	return number, true
}

func (t *Part) read(number int) {
	p := t.pieces[number%partPieces]
	offset := t.from + int64(number)*PieceSize
	size := int(min(PieceSize, t.to-offset))
	p.n, p.err = t.src.ReadAt(p.memory[partRoom:partRoom+size], offset)
	if p.n == size {
		p.err = nil
	}
	p.state.Store(pieceRead)
}

// take returns the next piece. It is to be given back with release.
func (t *Part) take() (*piece, error) {
	if t.err != nil || t.taken == t.count() {
		return nil, cmp.Or(t.err, io.EOF)
	}
	t.taken++
	for {
		p := t.last()
		if p != nil && p.state.Load() == pieceRead {
			t.err = p.err
			return p, nil
		}
		if next, ok := t.claim(); ok { // this one, or one to come while another thread reads this one
			t.read(next)
		} else if p != nil { // else the other thread has just begun to read it
			t.await(p)
		}
	}
}

// last returns the piece that was taken last, nil if nobody reads it yet.
func (t *Part) last() *piece {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.claimed < t.taken {
		return nil
	}
	return t.pieces[(t.taken-1)%partPieces]
}

// patience is how long await looks without a pause: the other thread mostly needs
// less, and to be woken takes longer.
const patience = 50 * time.Microsecond

func (t *Part) await(p *piece) {
	for began := time.Now(); time.Since(began) < patience; {
		if p.state.Load() == pieceRead {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for p.state.Load() != pieceRead {
		t.changed.Wait()
	}
}

// release gives a piece back.
func (t *Part) release(p *piece) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.state.Store(pieceFree)
	t.changed.Signal()
}

// fillPart is fill for a reader of a Part.
func (r *Reader) fillPart(n int) error {
	t := r.part
	r.sum()
	rest := r.buf[r.from:]
	r.base, r.from, r.summed = r.base+int64(r.from), 0, 0
	for len(rest) < n {
		p, err := t.take()
		if err != nil {
			r.buf = rest
			return r.ended(err)
		}
		if r.left >= 0 {
			r.left = max(r.left-int64(p.n), 0)
		}
		if from := partRoom - len(rest); from >= 0 && n <= len(rest)+p.n {
			copy(p.memory[from:], rest)
			rest = p.memory[from : partRoom+p.n]
			r.keep(t, p)
			continue
		}
		rest = t.join(rest, p.memory[partRoom:partRoom+p.n])
		t.release(p)
		r.keep(t, nil)
	}
	r.buf = rest
	return nil
}

// keep holds a piece while it is used, and gives back the one before.
func (r *Reader) keep(t *Part, p *piece) {
	if r.kept != nil {
		t.release(r.kept)
	}
	r.kept = p
}

// join appends more to rest, in the memory for what is longer than a piece. That
// grows with the bytes that are there, not with a length that a file claims.
func (t *Part) join(rest, more []byte) []byte {
	if t.long == nil {
		t.long = longs.Get().(*[]byte)
	}
	long := *t.long
	if len(rest) == 0 || cap(long) == 0 || &rest[0] != &long[:1][0] { // else it is there
		long = append(long[:0], rest...)
	}
	long = long[:len(rest)]
	if whole := len(rest) + len(more); whole > cap(long) {
		long = slices.Grow(long, max(whole, 2*cap(long))-len(rest)) // append would grow by a quarter
	}
	*t.long = append(long, more...)
	return *t.long
}
