package images

import (
	"cmp"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// PieceSize is how much of a file a Part reads at once.
const PieceSize = 128 << 10

// KeptSize is how long a Part can be that Keep keeps in memory.
const KeptSize = 8 << 20

// A Part that is not kept holds some pieces, which take turns. In front of each is
// room for what the piece before ended with: the first part of a message.
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
	pieces  []piece // that take turns, or all where they are kept
	kept    []byte  // all of the part, nil where it is not kept
	long    *[]byte // of kept, or what is longer than a piece, joined; nil before the first
}

// piece is a part of a file in memory.
type piece struct {
	memory []byte      // for its bytes
	turn   *turnMemory // that it is in, nil where pieces are kept
	n      int
	err    error
	sum    uint32 // CRC-32C of its bytes, if it is
	summed bool
	state  atomic.Int32
}

// turnMemory is memory of a piece that takes turns.
type turnMemory [partRoom + PieceSize]byte

// States of a piece.
const (
	pieceFree int32 = iota
	pieceReading
	pieceRead
)

// Memory is used again: to touch fresh memory costs more than to read into it.
var (
	turnMemories = sync.Pool{New: func() any { return new(turnMemory) }}
	longs        = sync.Pool{New: func() any { return new([]byte) }}
)

// NewPart returns the part of src between two offsets. Close must be called.
func NewPart(src io.ReaderAt, from, to int64) *Part {
	t := &Part{src: src, from: from, to: to}
	t.changed = sync.NewCond(&t.mu)
	t.pieces = make([]piece, min(t.count(), partPieces))
	return t
}

// Keep keeps all that is read in memory, one behind the other, until Close, if the
// part is no longer than KeptSize; it reports whether. Nothing is copied then, and
// Kept has the bytes. It must come before everything else.
func (t *Part) Keep() bool {
	size := t.to - t.from
	if size == 0 || size > KeptSize {
		return false
	}
	t.long = longs.Get().(*[]byte)
	*t.long = slices.Grow((*t.long)[:0], int(size))[:size]
	t.kept, t.pieces = *t.long, make([]piece, t.count())
	for i := range t.pieces {
		from := i * PieceSize
		t.pieces[i].memory = t.kept[from:min(from+PieceSize, int(size))]
	}
	return true
}

// Kept returns the whole part when all of it was read, and Keep was called and said
// yes. It is valid until Close.
func (t *Part) Kept() []byte { return t.kept }

// Ahead lets another thread read as well: whoever comes to a piece first reads
// it. Two threads read twice as fast as one from memory that no cache holds, and
// one reads while the user of what came before is busy in system calls. It also
// sums up what it reads, which is in its processor's cache and not in the user's. It
// does nothing where the part is small, or the program has one processor.
func (t *Part) Ahead() {
	if t.to-t.from >= aheadFrom && runtime.GOMAXPROCS(0) > 1 {
		t.helper.Go(t.help)
	}
}

// Close ends the reading. What the reader was given is no longer valid.
func (t *Part) Close() {
	t.mu.Lock()
	t.quit = true
	t.changed.Broadcast()
	t.mu.Unlock()
	t.helper.Wait()
	for i := range t.pieces {
		if turn := t.pieces[i].turn; turn != nil {
			turnMemories.Put(turn)
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
		t.read(number, true)
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

func (t *Part) piece(number int) *piece { return &t.pieces[number%len(t.pieces)] }

func (t *Part) free(number int) bool { return t.piece(number).state.Load() == pieceFree }

func (t *Part) begin() (number int, ok bool) {
	number = t.claimed
	if t.quit || number == t.count() || !t.free(number) {
		return 0, false
	}
	p := t.piece(number)
	if p.memory == nil {
		p.turn = turnMemories.Get().(*turnMemory)
		p.memory = p.turn[partRoom:]
	}
	p.state.Store(pieceReading)
	t.claimed++
	return number, true
}

func (t *Part) read(number int, sum bool) {
	p := t.piece(number)
	offset := t.from + int64(number)*PieceSize
	size := int(min(PieceSize, t.to-offset))
	p.n, p.err = t.src.ReadAt(p.memory[:size], offset)
	if p.n == size {
		p.err = nil
	}
	if p.summed = sum; sum {
		p.sum = Checksum(0, p.memory[:p.n])
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
			t.read(next, false)
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
	return t.piece(t.taken - 1)
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

// fillPart is fill for a reader of a Part. All that is in the buffer is summed up
// before the next piece is there: what is not consumed yet is the beginning of what
// comes next, so no queue ends in it.
func (r *Reader) fillPart(n int) error {
	t := r.part
	r.restore()
	for len(r.buf)-r.from < n {
		r.sumTo(len(r.buf))
		p, err := t.take()
		if err != nil {
			return r.ended(err)
		}
		if r.left >= 0 {
			r.left = max(r.left-int64(p.n), 0)
		}
		r.last = lastPiece{p.n, p.sum, p.summed} // append may give the piece back
		rest := r.buf[r.from:]
		r.buf = r.append(rest, p, n)
		r.base, r.from, r.summed = r.base+int64(r.from), 0, len(rest)
		if r.last.summed {
			r.fileCRC = join(r.fileCRC, r.last.sum, r.last.n)
		}
	}
	return nil
}

// append returns rest, which the piece follows, with it. n bytes are needed.
func (r *Reader) append(rest []byte, p *piece, n int) []byte {
	t := r.part
	if t.kept != nil {
		at := (t.taken - 1) * PieceSize
		return t.kept[at-len(rest) : at+p.n]
	}
	if from := partRoom - len(rest); from >= 0 && n <= len(rest)+p.n {
		copy(p.turn[from:], rest)
		r.hold(p)
		return p.turn[from : partRoom+p.n]
	}
	rest = t.join(rest, p.memory[:p.n])
	t.release(p)
	r.hold(nil)
	return rest
}

// hold holds a piece while it is used, and gives back the one before.
func (r *Reader) hold(p *piece) {
	if r.held != nil {
		r.part.release(r.held)
	}
	r.held = p
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
