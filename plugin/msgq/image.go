package msgq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync/atomic"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// inMemory is the largest image that is read once and kept. A larger one is read
// twice: checked whole first, then again while the queues are filled, and what
// is read again is checked again. To read twice into the same memory costs less
// than to touch fresh memory.
const inMemory = 32 << 10

// image is a checked ipcns-msg image.
type image struct {
	source  source
	records []record
	highest uint32 // id
	size    kind.Size
}

// record is a queue of the image: where it stands and what to make of it.
type record struct {
	images.Queue
	offset, length int64
	sum            uint32 // CRC-32C of the messages, as they stand in the image
	bytes          int64  // of payload
	longest        uint32 // bytes of the longest message

	owner, creator kernel.Creator // as the caller's user namespace knows them
}

// end is the offset of what follows the queue in the image.
func (r *record) end() int64 { return r.offset + r.length }

// source gives parts of the file.
type source struct {
	path string
	data []byte   // the whole file, or
	file *os.File // the file, nil without one
	used atomic.Pointer[images.Reader]
}

// Load implements kind.Kind.
func (Kind) Load(ctx context.Context, set *images.Set, owner *nsenter.Owner) (kind.Image, error) {
	file, size, err := set.Open(images.MsgKind)
	if errors.Is(err, fs.ErrNotExist) {
		return &image{}, nil
	}
	if err != nil {
		return nil, err
	}
	img := &image{}
	img.source.path, img.source.file = set.Path(images.MsgKind), file
	if err := img.load(ctx, set, size); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return img, img.complete(owner)
}

// maxQueues is what most kernels have room for.
const maxQueues = 1 << 15

// load reads the whole image, and by that checks it.
func (img *image) load(ctx context.Context, set *images.Set, size int64) error {
	src := io.Reader(io.NewSectionReader(img.source.file, 0, size))
	if size <= inMemory {
		data := make([]byte, size)
		if n, err := io.ReadFull(src, data); err != nil {
			return fmt.Errorf("read %s at offset %d: %w", img.source.path, n, err)
		}
		img.source.data = data
	}
	r, err := img.source.whole(src, size)
	if err != nil {
		return err
	}
	for {
		err := img.scan(ctx, r)
		if len(img.records) == 1 { // most queues are like the first
			img.records = slices.Grow(img.records, int(min(size/img.records[0].length, maxQueues)))
		}
		if errors.Is(err, io.EOF) {
			return set.Check(images.MsgKind, r.Offset(), r.FileSum())
		}
		if err != nil {
			return err
		}
	}
}

// scan reads one queue; io.EOF after the last.
func (img *image) scan(ctx context.Context, r *images.Reader) error {
	offset := r.Offset()
	q, err := r.Queue()
	if err != nil {
		return err
	}
	rec := record{Queue: *q, offset: offset}
	if err := valid(q); err != nil {
		return &images.FormatError{File: img.source.path, Offset: offset, Reason: err.Error()}
	}
	for {
		messages, bytes, longest, err := r.SkipAll(pollEvery)
		if err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
		rec.bytes += bytes
		rec.longest = max(rec.longest, longest)
		if messages < pollEvery {
			break
		}
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
	}
	rec.sum, rec.length = r.Sum(), r.Offset()-offset
	img.records = append(img.records, rec)
	img.size.Objects++
	img.size.Messages += int64(q.QNum)
	img.size.Bytes += rec.bytes
	return nil
}

// valid refuses what no kernel has.
func valid(q *images.Queue) error {
	switch {
	case q.ID > math.MaxInt32:
		return fmt.Errorf("queue id %d is above %d", q.ID, math.MaxInt32)
	case q.QBytes > math.MaxInt32:
		return fmt.Errorf("%s: qbytes %d is above %d, the most that msgmnb can be", q, q.QBytes, math.MaxInt32)
	case q.Mode > 0o777:
		return fmt.Errorf("%s: mode %#o has more than permission bits", q, q.Mode)
	}
	return nil
}

// complete checks what concerns more than one queue, and the owners.
func (img *image) complete(owner *nsenter.Owner) error {
	if r, first := img.twice(func(r *record) uint32 { return r.ID }, false); r != nil {
		return img.fault(r, "queue id %d stands at offset %d already", r.ID, first)
	}
	if r, first := img.twice(func(r *record) uint32 { return r.Key }, true); r != nil {
		return img.fault(r, "queue key %#x stands at offset %d already", r.Key, first)
	}
	for i := range img.records {
		r := &img.records[i]
		img.highest = max(img.highest, r.ID)
		var err error
		if r.owner, r.creator, err = mapOut(&r.Queue, owner); err != nil {
			return img.fault(r, "%s: %v", &r.Queue, err)
		}
	}
	return nil
}

// twice finds a record with a number that one before has too, and that one's
// offset. 0 may be there more than once if zeroAgain is set.
func (img *image) twice(number func(*record) uint32, zeroAgain bool) (again *record, first int64) {
	if img.ascending(number) {
		return nil, 0 // the usual order of ids needs no memory
	}
	offsets := make(map[uint32]int64, len(img.records))
	for i := range img.records {
		r := &img.records[i]
		n := number(r)
		if n == 0 && zeroAgain {
			continue
		}
		if offset, twice := offsets[n]; twice {
			return r, offset
		}
		offsets[n] = r.offset
	}
	return nil, 0
}

func (img *image) ascending(number func(*record) uint32) bool {
	for i := 1; i < len(img.records); i++ {
		if number(&img.records[i-1]) >= number(&img.records[i]) {
			return false
		}
	}
	return true
}

func (img *image) fault(r *record, format string, args ...any) error {
	return &images.FormatError{File: img.source.path, Offset: r.offset, Reason: fmt.Sprintf(format, args...)}
}

// Size implements kind.Image.
func (img *image) Size() kind.Size { return img.size }

// Close implements kind.Image.
func (img *image) Close() error {
	if img.source.file == nil {
		return nil
	}
	return img.source.file.Close()
}

// whole reads the file for the first time. The reader's memory serves again when
// the first thread fills queues.
func (s *source) whole(src io.Reader, size int64) (*images.Reader, error) {
	if s.data != nil {
		return images.NewBytesReader(s.path, s.data)
	}
	r, err := images.NewReader(s.path, src, size)
	s.used.Store(r)
	return r, err
}

// cursor returns a cursor, over memory that was used before if there is any.
func (s *source) cursor() cursor {
	c := cursor{source: s}
	if r := s.used.Swap(nil); r != nil {
		c.reader = *r
		c.reader.Reset(s.path, nil, 0, 0)
	}
	return c
}

// cursor reads queues of the image again, on one thread.
type cursor struct {
	source *source
	reader images.Reader
	end    int64 // of what reader reads
}

// at reads one queue again, up to its messages. It must be the one that was
// checked. Queues that follow each other up to the offset end are read in one
// go.
func (c *cursor) at(r *record, end int64) (*images.Reader, error) {
	s := c.source
	switch {
	case s.data != nil:
		c.reader.ResetBytes(s.path, s.data[r.offset:r.end()], r.offset)
	case c.reader.Offset() != r.offset || r.offset >= c.end:
		c.end = end
		c.reader.Reset(s.path, io.NewSectionReader(s.file, r.offset, end-r.offset), r.offset, end-r.offset)
	}
	q, err := c.reader.Queue()
	if err != nil {
		return nil, err
	}
	if *q != r.Queue {
		return nil, s.altered(r)
	}
	return &c.reader, nil
}

func (s *source) altered(r *record) error {
	return &images.FormatError{File: s.path, Offset: r.offset, Reason: fmt.Sprintf("%s: the image changed while it was being restored", &r.Queue)}
}
