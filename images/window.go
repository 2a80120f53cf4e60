package images

import (
	"errors"
	"fmt"
	"io"
)

// errEnded says that the source ended, at a point where it should not have or
// where an image may end. It is not io.ErrUnexpectedEOF because a source returns
// that too, for an archive or a compressed stream that was cut off.
var errEnded = errors.New("the source ended")

// need makes the next n bytes available in the buffer. It returns errEnded where
// the source ends before.
func (r *Reader) need(n int) error {
	if len(r.buf)-r.from >= n {
		return nil
	}
	if r.left >= 0 && int64(n) > int64(len(r.buf)-r.from)+r.left {
		return errEnded
	}
	return r.fill(n)
}

// fill reads until n bytes are there. A length that a hostile file claims does
// not size the buffer: it doubles as the bytes come in.
func (r *Reader) fill(n int) error {
	switch {
	case r.part != nil:
		return r.fillPart(n)
	case r.src == nil:
		return errEnded
	}
	r.shift()
	for len(r.buf) < n {
		r.grow()
		got, err := r.src.Read(r.buf[len(r.buf):r.until(n)])
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
		r.left = max(r.left, 0)
		return errEnded
	}
	return fmt.Errorf("read %s at offset %d: %w", r.file, r.base+int64(len(r.buf)), err)
}

// shift moves what is not consumed to the front of the buffer.
func (r *Reader) shift() {
	r.sum()
	rest := copy(r.buf, r.buf[r.from:])
	r.buf, r.base, r.from = r.buf[:rest], r.base+int64(r.from), 0
	r.summed = 0
}

// until returns up to where the buffer is to be filled when n bytes are needed.
// Behind a long message only its successor's record is read: what is not used
// up has to be moved to the front of the buffer.
func (r *Reader) until(n int) int {
	if n < window/2 {
		return cap(r.buf)
	}
	return min(n+maxRecord, cap(r.buf))
}

func (r *Reader) grow() {
	if len(r.buf) < cap(r.buf) {
		return
	}
	size := max(2*cap(r.buf), window)
	if r.left >= 0 {
		// No larger than what is to come; that is a claim as well, in an archive.
		size = int(min(int64(size), int64(len(r.buf))+max(r.left, 1)))
	}
	grown := make([]byte, len(r.buf), size)
	copy(grown, r.buf)
	r.buf = grown
}

func (r *Reader) truncated(err error, offset int64, format string, args ...any) error {
	if !errors.Is(err, errEnded) {
		return err
	}
	return fault(r.file, offset, "truncated in a %s", fmt.Sprintf(format, args...))
}
