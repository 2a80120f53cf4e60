package images

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// castagnoli is the polynomial of CRC-32C, which processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// need makes the next n bytes available in the buffer. It returns
// io.ErrUnexpectedEOF where the source ends before.
func (r *Reader) need(n int) error {
	if len(r.buf)-r.from >= n {
		return nil
	}
	if r.left >= 0 && int64(n) > int64(len(r.buf)-r.from)+r.left {
		// Even so the rest is read, for the magic numbers of a short file.
		n = len(r.buf) - r.from + int(r.left)
		if err := r.fill(n); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return r.fill(n)
}

// fill reads until n bytes are there. A length that a hostile file claims does
// not size the buffer: it doubles as the bytes come in.
func (r *Reader) fill(n int) error {
	if r.src == nil {
		return io.ErrUnexpectedEOF
	}
	r.shift()
	for len(r.buf) < n {
		r.grow(n)
		got, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+got]
		if r.left >= 0 {
			r.left = max(r.left-int64(got), 0)
		}
		if err != nil && len(r.buf) < n {
			return r.ended(err)
		}
	}
	return nil
}

func (r *Reader) ended(err error) error {
	if errors.Is(err, io.EOF) {
		r.left = 0
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s at offset %d: %w", r.file, r.base+int64(len(r.buf)), err)
}

// shift moves what is not consumed to the front of the buffer.
func (r *Reader) shift() {
	rest := copy(r.buf, r.buf[r.from:])
	r.buf, r.base, r.from = r.buf[:rest], r.base+int64(r.from), 0
}

func (r *Reader) grow(n int) {
	if len(r.buf) < cap(r.buf) {
		return
	}
	size := max(2*cap(r.buf), window)
	if r.left >= 0 {
		// The end is known: no larger than what is to come, and n at once.
		size = int(min(int64(max(n, window)), int64(len(r.buf))+r.left))
		size = max(size, len(r.buf)+1)
	}
	grown := make([]byte, len(r.buf), size)
	copy(grown, r.buf)
	r.buf = grown
}

func (r *Reader) truncated(err error, offset int64, format string, args ...any) error {
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fault(r.file, offset, "truncated in a %s", fmt.Sprintf(format, args...))
}

// Checksum continues a CRC-32C over more bytes; it begins with 0.
func Checksum(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }
