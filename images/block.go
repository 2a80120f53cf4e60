package images

import (
	"encoding/binary"
	"slices"
)

// mtypeLen is the length of the mtype that msgrcv(2) and msgsnd(2) want before
// a payload: struct msgbuf on a 64-bit kernel.
const mtypeLen = 8

// minRecord is the shortest record of a message: the length and two one-byte
// fields with their tags.
const minRecord = 4 + 4

// maxHead is the longest: two fields of 64 bits.
const maxHead = 4 + 2*11

// Block is a piece of an ipcns-msg image in memory, grown record by record. A
// message is received straight into its place: Room gives the place, Message
// writes the head in front of it. The zero value is an empty block.
type Block struct {
	buf   []byte
	guess int // expected length of the record before the next payload
}

// Bytes returns the records so far; they are the block's until Reset.
func (b *Block) Bytes() []byte { return b.buf }

// Len returns the length of the records so far.
func (b *Block) Len() int { return len(b.buf) }

// Cap returns the bytes of memory the block holds.
func (b *Block) Cap() int { return cap(b.buf) }

// Reserve makes room for n bytes of records beforehand.
func (b *Block) Reserve(n int) { b.buf = slices.Grow(b.buf, n) }

// Reset empties the block and keeps its memory.
func (b *Block) Reset() { b.buf = b.buf[:0] }

// Queue appends the head of a queue. Its QNum messages have to follow.
func (b *Block) Queue(q *Queue) {
	start := len(b.buf)
	b.buf = appendEntry(append(b.buf, 0, 0, 0, 0), q)
	binary.LittleEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start-4))
}

// Room returns a buffer for the next message, in the form msgrcv(2) fills: 8
// bytes of mtype, then size bytes of payload. It may overlap nothing that is
// finished, and is valid until the next call.
func (b *Block) Room(size int) []byte {
	b.buf = slices.Grow(b.buf, maxHead+size+pad) // Message must not move the buffer
	payload := b.payload()
	return b.buf[payload-mtypeLen : payload+size : payload+size]
}

// payload returns where the next payload is expected to stand. Records of one
// queue mostly have one length, so the last one's is the guess.
func (b *Block) payload() int {
	return len(b.buf) + max(b.guess, minRecord)
}

// Message appends the message that was received into the last Room: its mtype
// is in the first 8 bytes there, in native byte order, its payload of size
// bytes, no more than Room was asked for, after them.
func (b *Block) Message(size int) {
	payload := b.payload()
	mtype := int64(binary.NativeEndian.Uint64(b.buf[payload-mtypeLen : payload]))

	var scratch [maxHead]byte
	record := appendMessage(scratch[:4], Message{Type: mtype, Size: uint32(size)})
	binary.LittleEndian.PutUint32(record, uint32(len(record)-4))

	start := len(b.buf)
	end := start + len(record) + size + padding(size)
	b.buf = b.buf[:end]
	if place := start + len(record); place != payload {
		copy(b.buf[place:place+size], b.buf[payload:payload+size])
	}
	copy(b.buf[start:], record)
	clear(b.buf[end-padding(size):])
	b.guess = len(record)
}
