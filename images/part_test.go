package images_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

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

// part reads an image through a Part.
func part(src io.ReaderAt, size int64, ahead bool) ([]queue, error) {
	p := images.NewPart(src, 0, size)
	defer p.Close()
	if ahead {
		p.Ahead()
	}
	r, err := images.NewPartReader("the image", p)
	if err != nil {
		return nil, err
	}
	return rest(r)
}

func TestPart(t *testing.T) {
	image, want := pieces(t)
	for range 20 { // memory that was used before, and other moments of the two threads
		for _, ahead := range []bool{false, true} {
			got, err := part(bytes.NewReader(image), int64(len(image)), ahead)
			if diff := diff(want, got); diff != "" || err != nil {
				t.Fatalf("ahead %v: %v\n%s", ahead, err, diff)
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
		for _, ahead := range []bool{false, true} {
			_, err := part(failing{bytes.NewReader(image), from}, int64(len(image)), ahead)
			if !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, images.ErrFormat) {
				t.Errorf("from %d on, ahead %v: %v, want the source's error", from, ahead, err)
			}
		}
	}
}

// A file that has shrunk since its size was taken.
func TestPartMissesTheEnd(t *testing.T) {
	image, _ := pieces(t)
	for cut := 0; cut < len(image); cut += images.PieceSize/2 + 1 {
		for _, ahead := range []bool{false, true} {
			_, err := part(bytes.NewReader(image[:cut]), int64(len(image)), ahead)
			if !errors.Is(err, images.ErrFormat) {
				t.Errorf("cut at %d, ahead %v: %v, want a fault of the image", cut, ahead, err)
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

func TestWhole(t *testing.T) {
	whole := func(src io.ReaderAt, size int64) ([]byte, error) {
		p := images.NewPart(src, 0, size)
		defer p.Close()
		data, err := p.Whole()
		return bytes.Clone(data), err
	}
	for _, size := range []int64{0, 1, images.PieceSize, images.PieceSize + 1, images.WholeSize} {
		data := pattern(int(size))
		if got, err := whole(bytes.NewReader(data), size); !bytes.Equal(got, data) || err != nil {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
		if _, err := whole(bytes.NewReader(data), size+1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes, shrunk from %d: %v", size, size+1, err)
		}
	}
	if _, err := whole(failing{bytes.NewReader(pattern(9)), 8}, 9); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("%v, want the source's error", err)
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
