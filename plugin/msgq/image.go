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

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// image is a checked ipcns-msg image.
type image struct {
	source  source
	records []record
	highest uint32 // id
	size    kind.Size

	chosen kind.Selection
	others []images.Queue // that it holds and chosen does not choose

	seen map[int32]sighting // live queues that were compared, by id
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

// source gives parts of the file. One of up to images.KeptSize is read once and
// kept. A larger one is read twice: checked whole first, then again while the
// queues are filled, and what is read again is checked again.
type source struct {
	path string
	file *os.File     // nil without one
	part *images.Part // the whole file, while it is needed
	data []byte       // its bytes, where they are kept, when all were checked
}

// Load implements kind.Kind.
func (of Kind) Load(ctx context.Context, set *images.Set, owner *nsenter.Owner) (kind.Image, error) {
	file, size, err := set.Open(images.MsgKind)
	if errors.Is(err, fs.ErrNotExist) {
		return &image{chosen: of.chosen}, nil
	}
	if err != nil {
		return nil, err
	}
	img := &image{chosen: of.chosen}
	img.source.path, img.source.file = set.Path(images.MsgKind), file
	if err = img.load(ctx, set, size); err == nil {
		err = img.complete(owner)
	}
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return img, nil
}

// maxQueues is what most kernels have room for.
const maxQueues = 1 << 15

// load reads the whole image, and by that checks it.
func (img *image) load(ctx context.Context, set *images.Set, size int64) error {
	r, err := img.source.whole(size)
	if err != nil {
		return err
	}
	for {
		err := img.scan(ctx, r)
		if len(img.records) == 1 { // most queues are like the first
			img.records = slices.Grow(img.records, int(min(size/img.records[0].length, maxQueues)))
		}
		if errors.Is(err, io.EOF) {
			img.source.checked()
			set.Checked(images.MsgKind, r.Offset(), r.FileSum())
			return nil
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
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("%s: read it from %s: %w", q, img.source.path, err)
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
	img.choose()
	return nil
}

// choose takes out the queues that are not chosen, when all were checked.
func (img *image) choose() {
	if img.chosen == nil {
		return
	}
	img.records = slices.DeleteFunc(img.records, func(r record) bool {
		if img.chosen.Has(int32(r.Key), r.owner.UID) {
			return false
		}
		img.others = append(img.others, r.Queue)
		img.size.Objects--
		img.size.Messages -= int64(r.QNum)
		img.size.Bytes -= r.bytes
		return true
	})
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
	img.source.release()
	return img.source.file.Close()
}

// whole reads the file for the first time, until checked is called.
func (s *source) whole(size int64) (*images.Reader, error) {
	s.part = images.NewPart(s.file, 0, size)
	s.part.Keep()
	s.part.Ahead()
	return images.NewPartReader(s.path, s.part)
}

// checked gives back the memory when all was read, unless the file is kept in it.
func (s *source) checked() {
	if s.data = s.part.Kept(); s.data == nil {
		s.release()
	}
}

func (s *source) release() {
	if s.part != nil {
		s.part.Close()
		s.part, s.data = nil, nil
	}
}

// cursor reads queues of the image again, on one thread.
type cursor struct {
	source *source
	reader images.Reader
	part   *images.Part // what reader reads
	end    int64        // of it
}

// rest ends what at began.
func (c *cursor) rest() {
	c.reader.ResetBytes(c.source.path, nil, 0) // puts back what was written over, and lets go of the memory
	if c.part == nil {
		return
	}
	c.part.Close()
	c.part, c.end = nil, 0
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
		c.open(r.offset, end)
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

// unaltered reports whether the messages that were read again are those that were
// checked. What was kept in memory was not read again.
func (c *cursor) unaltered(r *record) error {
	if c.source.data == nil && c.reader.Sum() != r.sum {
		return c.source.altered(r)
	}
	return nil
}

func (c *cursor) open(from, end int64) {
	c.rest()
	c.part, c.end = images.NewPart(c.source.file, from, end), end
	c.part.Ahead()
	c.reader.ResetPart(c.source.path, c.part)
}

func (s *source) altered(r *record) error {
	return &images.FormatError{File: s.path, Offset: r.offset, Reason: fmt.Sprintf("%s: the image changed while it was being restored", &r.Queue)}
}
