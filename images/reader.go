package images

import (
	"encoding/binary"
	"errors"
	"io"
)

// maxRecord bounds the length of one protobuf record: CRIU's are below 100
// bytes, and newer versions may add fields.
const maxRecord = 4096

// window is how much a Reader reads at once.
const window = 32 << 10

// Reader reads the queues and messages of an ipcns-msg image in their order. It
// holds one message in memory, and believes no length before the bytes are
// there.
type Reader struct {
	file string
	src  io.Reader // of a reader of a stream
	part *Part     // of one of a Part; neither is set for one of bytes in memory
	left int64     // bytes that are still to come, -1 if unknown
	base int64     // offset in the file of buf[0]

	buf      []byte
	held     *piece // that buf is in, of a Part that is not kept
	last     lastPiece
	from     int // first byte of buf not yet consumed
	summed   int // up to where buf is in the checksums
	queueCRC uint32
	fileCRC  uint32
	todo     uint32 // messages of the current queue not yet read
	clobbers []clobber
}

// lastPiece is the piece of a Part that buf ends with. When it has come in, all that
// is in front of it has been summed up. If it is summed up itself, the checksum of the
// file has it already.
type lastPiece struct {
	n      int
	sum    uint32 // if it is
	summed bool
}

// clobber remembers 8 bytes of the buffer that a message's mtype was written
// over.
type clobber struct {
	at  *[mtypeLen]byte
	was [mtypeLen]byte
}

// Payload is a message of an image with its bytes.
type Payload struct {
	Message
	Offset int64 // of its record in the file

	buf []byte // 8 bytes of the record's end, then the payload
}

// NewReader reads a whole image; file is the name that errors give. size is how
// many bytes src will give, or -1 where that is not known; it allows to refuse
// absurd counts at once.
func NewReader(file string, src io.Reader, size int64) (*Reader, error) {
	return begin(&Reader{file: file, src: src, left: size})
}

// NewPartReader is NewReader for a Part that begins where the file does.
func NewPartReader(file string, part *Part) (*Reader, error) {
	return begin(&Reader{file: file, part: part, left: part.to})
}

// begin reads the magic numbers.
func begin(r *Reader) (*Reader, error) {
	head := headerLen
	if r.left >= 0 {
		head = int(min(r.left, headerLen)) // what a short file has of it
	}
	if err := r.need(head); err != nil && !errors.Is(err, errEnded) {
		return nil, err
	}
	if err := checkHeader(r.file, r.buf[:min(len(r.buf), headerLen)], MsgKind); err != nil {
		return nil, err
	}
	r.from = headerLen
	r.sum()
	return r, nil
}

// ResetPart makes the reader read a part of an image that begins with a queue,
// where Offset told it. The zero Reader may be reset. Before the Part it read is
// closed, a reader must be reset.
func (r *Reader) ResetPart(file string, part *Part) {
	r.restore()
	*r = Reader{file: file, part: part, left: part.to - part.from, base: part.from, clobbers: r.clobbers}
}

// ResetBytes is ResetPart for a part in memory that stands at offset. It copies
// nothing; Msgbufs changes data until the next call.
func (r *Reader) ResetBytes(file string, data []byte, offset int64) {
	r.restore()
	*r = Reader{file: file, buf: data, base: offset, clobbers: r.clobbers}
}

// Offset returns the offset in the file of what comes next.
func (r *Reader) Offset() int64 { return r.base + int64(r.from) }

// Sum returns the CRC-32C of the messages read since the last Queue, records,
// payloads and padding.
func (r *Reader) Sum() uint32 {
	r.sum()
	return r.queueCRC
}

// FileSum returns the CRC-32C of everything from where the reader began, when Queue
// has told the end.
func (r *Reader) FileSum() Sum {
	r.sum()
	return Sum(r.fileCRC)
}

// sum takes what was consumed into the checksums: in large pieces, which cost
// much less than one message after the other.
func (r *Reader) sum() {
	r.restore()
	if r.from > r.summed { // else fillPart has done more
		r.sumTo(r.from)
	}
}

func (r *Reader) sumTo(end int) {
	b := r.buf[r.summed:end]
	r.summed = end
	switch {
	case !r.last.summed:
		checksums(&r.queueCRC, &r.fileCRC, b)
	case len(b) == r.last.n: // in one queue
		r.queueCRC = join(r.queueCRC, r.last.sum, len(b))
	default:
		r.queueCRC = Checksum(r.queueCRC, b)
	}
}

// Queue reads the head of the next queue; io.EOF after the last one. All
// messages of the queue before must have been read.
func (r *Reader) Queue() (*Queue, error) {
	r.sum()
	if r.todo > 0 {
		return nil, fault(r.file, r.Offset(), "%d messages of the queue before are unread", r.todo)
	}
	if err := r.need(1); err != nil {
		return nil, r.end(err)
	}
	start := r.Offset()
	record, err := r.record("queue")
	if err != nil {
		return nil, err
	}
	q := &Queue{}
	if err := parseEntry(record[4:], q); err != nil {
		return nil, fault(r.file, start, "queue record: %v", err)
	}
	if err := r.possible(start, q); err != nil {
		return nil, err
	}
	r.sum()
	r.todo, r.queueCRC = q.QNum, 0 // the head is not part of a queue's sum
	return q, nil
}

// end tells where an image may end that err says has ended: not before the size
// that was promised, even between two queues.
func (r *Reader) end(err error) error {
	switch {
	case !errors.Is(err, errEnded):
		return err
	case r.left > 0:
		return fault(r.file, r.Offset(), "truncated: the last %d bytes are missing", r.left)
	}
	return io.EOF
}

// possible refuses a number of messages that the rest of the file cannot hold.
func (r *Reader) possible(start int64, q *Queue) error {
	if r.left < 0 {
		return nil
	}
	rest := int64(len(r.buf)-r.from) + r.left
	if int64(q.QNum)*minRecord > rest {
		return fault(r.file, start, "%s: %d messages in the remaining %d bytes", q, q.QNum, rest)
	}
	return nil
}

// Message reads the next message of the current queue; io.EOF after the last
// one. The payload is valid until the next call.
func (r *Reader) Message() (Payload, error) {
	r.restore()
	if r.todo == 0 {
		return Payload{}, io.EOF
	}
	p := Payload{Offset: r.Offset()}
	head, err := r.head(&p.Message)
	if err != nil {
		return Payload{}, err
	}
	size := int(p.Size)
	whole := head + size + padding(size)
	if err := r.need(whole); err != nil {
		return Payload{}, r.truncated(err, p.Offset, "message of %d bytes", size)
	}
	bytes := r.buf[r.from : r.from+whole]
	p.buf = bytes[head-mtypeLen : head+size : head+size]
	r.from += whole
	r.todo--
	return p, nil
}

// Msgbufs is Message for who only sends messages, and sends several: as many of
// the next ones as are in memory and bufs, which is not empty, has room for. It
// returns how many there are, at least one; io.EOF after the last. To send several
// in a row is a fiftieth faster than to parse and to send in turns.
//
// Each is as msgsnd(2) wants it, 8 bytes of mtype in native byte order and then
// the payload, and valid until the next call. The mtype is written over the end
// of the record in front of the payload, so that nothing is copied.
func (r *Reader) Msgbufs(bufs [][]byte) (n int, err error) {
	r.restore()
	for n < len(bufs) && r.todo > 0 {
		var m Message
		rest := r.buf[r.from:]
		head := usualHead(rest, &m)
		size := head + int(m.Size)
		whole := size + padding(int(m.Size))
		if head == 0 || whole > len(rest) {
			break
		}
		bufs[n] = r.clobber(rest[head-mtypeLen:size:size], m.Type)
		n++
		r.from += whole
		r.todo--
	}
	if n > 0 {
		return n, nil
	}
	p, err := r.Message()
	if err != nil {
		return 0, err
	}
	bufs[0] = r.clobber(p.buf, p.Type)
	return 1, nil
}

// SkipAll skips up to limit messages of the current queue and returns how many
// there were, their bytes of payload, and the length of the longest.
func (r *Reader) SkipAll(limit int) (messages int, bytes int64, longest uint32, err error) {
	r.restore()
	for messages < limit && r.todo > 0 {
		var m Message
		whole := usualHead(r.buf[r.from:], &m)
		if whole > 0 {
			whole += int(m.Size) + padding(int(m.Size))
		}
		if whole > 0 && whole <= len(r.buf)-r.from {
			r.from += whole
			r.todo--
		} else if m, err = r.Skip(); err != nil {
			return messages, bytes, longest, err
		}
		messages++
		bytes += int64(m.Size)
		longest = max(longest, m.Size)
	}
	return messages, bytes, longest, nil
}

// Skip is Message without the payload, which needs not fit into memory.
func (r *Reader) Skip() (Message, error) {
	r.restore()
	if r.todo == 0 {
		return Message{}, io.EOF
	}
	var m Message
	offset := r.Offset()
	head, err := r.head(&m)
	if err != nil {
		return Message{}, err
	}
	for rest := head + int(m.Size) + padding(int(m.Size)); rest > 0; {
		if err := r.need(1); err != nil {
			return Message{}, r.truncated(err, offset, "message of %d bytes", m.Size)
		}
		n := min(rest, len(r.buf)-r.from)
		r.from, rest = r.from+n, rest-n
	}
	r.todo--
	return m, nil
}

// head reads the record of a message and returns its length; it stays to be
// consumed.
func (r *Reader) head(m *Message) (int, error) {
	if n := usualHead(r.buf[r.from:], m); n > 0 {
		return n, nil
	}
	start := r.Offset()
	record, err := r.record("message")
	if err != nil {
		return 0, err
	}
	if err := parseMessage(record[4:], m); err != nil {
		return 0, fault(r.file, start, "message record: %v", err)
	}
	if m.Type < 1 {
		return 0, fault(r.file, start, "message type %d is below 1", m.Type)
	}
	r.from -= len(record)
	return len(record), nil
}

// Bytes returns the payload.
func (p *Payload) Bytes() []byte { return p.buf[mtypeLen:] }

func (r *Reader) clobber(buf []byte, mtype int64) []byte {
	at := (*[mtypeLen]byte)(buf)
	r.clobbers = append(r.clobbers, clobber{at, *at})
	binary.NativeEndian.PutUint64(at[:], uint64(mtype))
	return buf
}

// restore puts back what Msgbufs wrote over: the bytes may be read again.
func (r *Reader) restore() {
	for i := range r.clobbers {
		*r.clobbers[i].at = r.clobbers[i].was
	}
	r.clobbers = r.clobbers[:0]
}

// record consumes a length and as many bytes; it returns both.
func (r *Reader) record(what string) ([]byte, error) {
	start := r.Offset()
	if err := r.need(4); err != nil {
		return nil, r.truncated(err, start, "length of a %s record", what)
	}
	length := binary.LittleEndian.Uint32(r.buf[r.from:])
	if length > maxRecord || length < minRecord-4 {
		return nil, fault(r.file, start, "%s record of %d bytes", what, length)
	}
	whole := 4 + int(length)
	if err := r.need(whole); err != nil {
		return nil, r.truncated(err, start, "%s record of %d bytes", what, length)
	}
	record := r.buf[r.from : r.from+whole]
	r.from += whole
	return record, nil
}
