package images_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
)

// pieces is an image of many pieces, with messages that end anywhere in them and
// some that are longer than one.
func pieces(t testing.TB) ([]byte, []queue) {
	t.Helper()
	const piece = images.PieceSize
	var queues []queue
	for i, sizes := range [][]int{
		{0, 1, 7, 8, 9, piece - 100, 3, piece, 60 << 10, 68 << 10, 69 << 10, 70 << 10},
		{},
		{1 << 20, 1, 1 << 20, 3*piece + 5, 2, 2 * piece},
		{64 << 10, 64 << 10, 64 << 10, 64 << 10, 64 << 10, 64 << 10, 64 << 10, 4},
	} {
		q := queue{Queue: images.Queue{ID: uint32(i), Key: uint32(i + 1), QNum: uint32(len(sizes))}}
		for j, size := range sizes {
			q.Messages = append(q.Messages, message{int64(j + 1), pattern(size + j)[j:]})
		}
		queues = append(queues, q)
	}
	return encode(t, queues), queues
}

// ways are how a Part can be used.
var ways = map[string]func(*images.Part){
	"in turns":        func(*images.Part) {},
	"in turns, ahead": (*images.Part).Ahead,
	"kept":            func(p *images.Part) { p.Keep() },
	"kept, ahead":     func(p *images.Part) { p.Keep(); p.Ahead() },
}

// part reads an image through a Part.
func part(src io.ReaderAt, size int64, use func(*images.Part)) ([]queue, error) {
	p := images.NewPart(src, 0, size)
	defer p.Close()
	use(p)
	r, err := images.NewPartReader("the image", p)
	if err != nil {
		return nil, err
	}
	queues, err := rest(r)
	r.Sum() // may be asked for after an error, too
	return queues, err
}

func TestPart(t *testing.T) {
	image, want := pieces(t)
	for range 20 { // memory that was used before, and other moments of the two threads
		for way, use := range ways {
			got, err := part(bytes.NewReader(image), int64(len(image)), use)
			if diff := diff(want, got); diff != "" || err != nil {
				t.Fatalf("%s: %v\n%s", way, err, diff)
			}
		}
	}
}

func TestPartOfAFile(t *testing.T) {
	image, want := pieces(t)
	heads := len(wantImage(t, want[:2]...))
	p := images.NewPart(bytes.NewReader(image), int64(heads), int64(len(image)))
	defer p.Close()
	var r images.Reader
	r.ResetPart("the image", p)
	got, err := rest(&r)
	if diff := diff(want[2:], got); diff != "" || err != nil || r.Offset() != int64(len(image)) {
		t.Errorf("%v, at %d\n%s", err, r.Offset(), diff)
	}
}

// failing has an error from an offset on.
type failing struct {
	io.ReaderAt
	from int64
}

func (f failing) ReadAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) <= f.from {
		return f.ReaderAt.ReadAt(b, offset)
	}
	n, _ := f.ReaderAt.ReadAt(b[:max(f.from-offset, 0)], offset)
	return n, iotest.ErrTimeout
}

func TestPartPassesErrors(t *testing.T) {
	image, _ := pieces(t)
	for from := int64(0); from < int64(len(image)); from += images.PieceSize/2 + 1 {
		for way, use := range ways {
			_, err := part(failing{bytes.NewReader(image), from}, int64(len(image)), use)
			if !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, images.ErrFormat) {
				t.Errorf("from %d on, %s: %v, want the source's error", from, way, err)
			}
		}
	}
}

// A file that has shrunk since its size was taken.
func TestPartMissesTheEnd(t *testing.T) {
	image, _ := pieces(t)
	for cut := 0; cut < len(image); cut += images.PieceSize/2 + 1 {
		for way, use := range ways {
			_, err := part(bytes.NewReader(image[:cut]), int64(len(image)), use)
			if !errors.Is(err, images.ErrFormat) {
				t.Errorf("cut at %d, %s: %v, want a fault of the image", cut, way, err)
			}
		}
	}
}

// A user who gives up half way leaves nobody behind who reads.
func TestPartIsClosedEarly(t *testing.T) {
	image, want := pieces(t)
	for range 50 {
		p := images.NewPart(bytes.NewReader(image), 0, int64(len(image)))
		p.Ahead()
		r := must[*images.Reader](t)(images.NewPartReader("the image", p))
		must[*images.Queue](t)(r.Queue())
		m := must[images.Payload](t)(r.Message())
		if !bytes.Equal(m.Bytes(), want[0].Messages[0].Body) {
			t.Error("the first message is another one")
		}
		p.Close()
	}
}

// What is kept is the file, and only of a part that is not too long.
func TestKept(t *testing.T) {
	image, _ := pieces(t)
	p := images.NewPart(bytes.NewReader(image), 0, int64(len(image)))
	defer p.Close()
	if !p.Keep() {
		t.Fatalf("an image of %d bytes is not kept", len(image))
	}
	p.Ahead()
	r := must[*images.Reader](t)(images.NewPartReader("the image", p))
	must[[]queue](t)(rest(r))
	if !bytes.Equal(p.Kept(), image) {
		t.Errorf("%d bytes are kept, not the %d of the image", len(p.Kept()), len(image))
	}
	for size, want := range map[int64]bool{1: true, images.KeptSize: true, images.KeptSize + 1: false} {
		p := images.NewPart(instant{}, 0, size)
		if p.Keep() != want || int64(len(p.Kept())) != map[bool]int64{true: size}[want] {
			t.Errorf("%d bytes: %d are kept, want %v", size, len(p.Kept()), want)
		}
		p.Close()
	}
}

// instant reads nothing, at once.
type instant struct{}

func (instant) ReadAt(b []byte, _ int64) (int, error) { return len(b), nil }

// The two threads meet at every piece, in any order.
func TestPartMeets(t *testing.T) {
	const size = 7*images.PieceSize + 1
	for range 100_000 {
		p := images.NewPart(instant{}, 0, size)
		p.Ahead()
		for pieces := 0; ; pieces++ {
			if err := p.Next(); err != nil {
				if pieces != 8 || err != io.EOF {
					t.Fatalf("%d pieces, %v", pieces, err)
				}
				break
			}
		}
		p.Close()
	}
}

// counting counts the pieces that were read.
type counting struct {
	io.ReaderAt
	pieces atomic.Int64
}

func (c *counting) ReadAt(b []byte, offset int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, offset)
	c.pieces.Add(1)
	return n, err
}

// sums reads an image and returns the checksum of each queue, and of the file.
func sums(t *testing.T, r *images.Reader) []uint32 {
	t.Helper()
	return sumsBy(t, r, func() error { _, err := drain(r); return err })
}

// sumsBy is sums by another way to read a queue's messages.
func sumsBy(t *testing.T, r *images.Reader, messages func() error) (all []uint32) {
	t.Helper()
	for {
		if _, err := r.Queue(); errors.Is(err, io.EOF) {
			return append(all, uint32(r.FileSum()))
		} else if err != nil {
			t.Fatal(err)
		}
		if err := messages(); err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Sum())
	}
}

// Whoever reads a piece may sum it up, and queues may begin and end anywhere in it:
// where a queue ends and the next one begins is moved over the end of a piece.
func TestPartSums(t *testing.T) {
	atEnd := map[string]bool{}
	for move := range 20 {
		for length := range 8 { // more bytes of key and uid in the record
			key, uid := uint32(1)<<(7*min(length, 4)), uint32(1)<<(7*max(length-4, 0))
			ends := queue{Queue: images.Queue{ID: 1, Key: key, UID: uid, QNum: 1}, Messages: []message{{1, pattern(images.PieceSize - 8*move)}}}
			long := queue{Queue: images.Queue{ID: 2, Key: 2, QNum: 3}, Messages: []message{{1, pattern(4 * images.PieceSize)}, {2, pattern(9)}, {3, pattern(images.PieceSize)}}}
			small := queue{Queue: images.Queue{ID: 3, QNum: 1}, Messages: []message{{1, pattern(8)}}}
			atEnd["a queue"] = atEnd["a queue"] || len(wantImage(t, ends))%images.PieceSize == 0
			atEnd["a head"] = atEnd["a head"] || (len(wantImage(t, ends))+len(wantQueue(t, &long.Queue)))%images.PieceSize == 0
			testSums(t, encode(t, []queue{ends, long, small}))
		}
	}
	if !atEnd["a queue"] || !atEnd["a head"] {
		t.Errorf("what ended with a piece: %v", atEnd)
	}
}

func testSums(t *testing.T, image []byte) {
	t.Helper()
	want := sums(t, must[*images.Reader](t)(images.NewReader("the image", bytes.NewReader(image), int64(len(image)))))
	for way, use := range ways {
		src := &counting{ReaderAt: bytes.NewReader(image)}
		p := images.NewPart(src, 0, int64(len(image)))
		use(p)
		if strings.HasSuffix(way, "ahead") { // the other thread sums up
			const atOnce = 4 // pieces, in turns
			for deadline := time.Now().Add(10 * time.Second); src.pieces.Load() < atOnce; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("%s: %d pieces are read", way, src.pieces.Load())
				}
			}
		}
		if got := sums(t, must[*images.Reader](t)(images.NewPartReader("the image", p))); !slices.Equal(got, want) {
			t.Errorf("%s: sums %x, want %x", way, got, want)
		}
		p.Close()
	}
}
