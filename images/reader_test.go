package images_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"

	"github.com/ipc-cr/ipc-cr/images"
)

// plain is a small image with every kind of padding, and what is in it.
func plain(t testing.TB) ([]byte, []queue) {
	return criuImages(t, images.MsgKind)["plain"], criuQueues()["plain"]
}

func TestReaderOfAnySource(t *testing.T) {
	image, want := plain(t)
	for name, source := range map[string]func(io.Reader) io.Reader{
		"byte by byte":       iotest.OneByteReader,
		"half of each read":  iotest.HalfReader,
		"data with the end":  iotest.DataErrReader,
		"bytes, then errors": func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.OneByteReader(r)) },
	} {
		for _, size := range []int64{int64(len(image)), -1} {
			got, err := decode(source(bytes.NewReader(image)), size)
			if diff := diff(want, got); diff != "" || err != nil {
				t.Errorf("%s, size %d: %v\n%s", name, size, err, diff)
			}
		}
	}
}

// An error of the source is no fault of the image, wherever it comes; also the
// one that tells of a compressed stream that was cut off.
func TestReaderPassesErrors(t *testing.T) {
	image := wantImage(t, criuQueues()["plain"][:2]...)
	for _, want := range []error{iotest.ErrTimeout, io.ErrUnexpectedEOF} {
		for cut := range len(image) {
			for _, size := range []int64{int64(len(image)), -1} {
				source := io.MultiReader(bytes.NewReader(image[:cut]), iotest.ErrReader(want))
				_, err := decode(source, size)
				if !errors.Is(err, want) || errors.Is(err, images.ErrFormat) {
					t.Fatalf("after %d bytes, size %d: %v, want %v", cut, size, err, want)
				}
			}
		}
	}
}

func TestReaderTimeout(t *testing.T) {
	image, want := plain(t)
	source := iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(image)))
	if _, err := images.NewReader("the image", source, -1); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v, want a timeout", err)
	}
	// In a record nothing is lost: the next call goes on.
	head := wantImage(t, queue{Queue: want[0].Queue})
	r := must[*images.Reader](t)(images.NewReader("the image",
		io.MultiReader(bytes.NewReader(head), iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(image[len(head):])))), -1))
	must[*images.Queue](t)(r.Queue())
	if _, err := r.Message(); !errors.Is(err, iotest.ErrTimeout) {
		t.Fatalf("got %v, want a timeout", err)
	}
	got, err := drain(r)
	if diff := diff(want[0].Messages, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// A file that has shrunk since its size was taken is cut off, even between two
// queues.
func TestReaderMissesTheEnd(t *testing.T) {
	image, want := plain(t)
	cut := len(wantImage(t, want[0]))
	_, err := decode(bytes.NewReader(image[:cut]), int64(len(image)))
	checkFault(t, err, int64(cut))
	if got, err := decode(bytes.NewReader(image[:cut]), -1); err != nil || len(got) != 1 {
		t.Errorf("size unknown: %d queues, %v", len(got), err)
	}
}

func TestReaderWantsAllMessagesRead(t *testing.T) {
	image, _ := plain(t)
	r := must[*images.Reader](t)(images.NewReader("the image", bytes.NewReader(image), -1))
	must[*images.Queue](t)(r.Queue())
	must[images.Payload](t)(r.Message())
	_, err := r.Queue()
	checkFault(t, err, r.Offset())
}

// The offsets are those of the records, and parts can be read again by them.
func TestReaderOffsetsAndSum(t *testing.T) {
	image, want := plain(t)
	r := must[*images.Reader](t)(images.NewReader("the image", iotest.OneByteReader(bytes.NewReader(image)), -1))
	at := int64(8)
	for _, q := range want {
		start := at
		must[*images.Queue](t)(r.Queue())
		at += int64(len(wantQueue(t, &q.Queue)))
		sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		for _, m := range q.Messages {
			p := must[images.Payload](t)(r.Message())
			if p.Offset != at {
				t.Errorf("message at offset %d, want %d", p.Offset, at)
			}
			record := wantMessage(t, m)
			sum.Write(record)
			at += int64(len(record))
		}
		if _, err := r.Message(); err != io.EOF {
			t.Errorf("after the last message: %v", err)
		}
		if r.Offset() != at || r.Sum() != sum.Sum32() {
			t.Errorf("offset %d, sum %#x, want %d, %#x", r.Offset(), r.Sum(), at, sum.Sum32())
		}
		checkPart(t, image[:at], start, q)
	}
	if at != int64(len(image)) {
		t.Errorf("ends at %d of %d", at, len(image))
	}
	if want := images.Sum(images.Checksum(0, image)); r.FileSum() != want {
		t.Errorf("checksum of the file %s, want %s", r.FileSum(), want)
	}
}

// checkPart reads the last queue of an image, which stands at offset, in both
// ways, twice, with the same reader.
func checkPart(t *testing.T, image []byte, offset int64, want queue) {
	t.Helper()
	part := func() *images.Part {
		p := images.NewPart(bytes.NewReader(image), offset, int64(len(image)))
		t.Cleanup(p.Close)
		return p
	}
	var r images.Reader
	for range 2 {
		for _, reset := range []func(){
			func() { r.ResetPart("the image", part()) },
			func() { r.ResetBytes("the image", image[offset:], offset) },
		} {
			reset()
			got, err := rest(&r)
			if diff := diff([]queue{want}, got); diff != "" || err != nil {
				t.Errorf("part at %d: %v\n%s", offset, err, diff)
			}
			if r.Offset() != int64(len(image)) {
				t.Errorf("part at %d ends at %d, want %d", offset, r.Offset(), len(image))
			}
		}
	}
}

// Whatever number is asked for, every message comes once, as msgsnd wants it, and
// what it was written over is neither missed in the checksum nor afterwards.
func TestMsgbufs(t *testing.T) {
	image, want := pieces(t)
	for _, room := range []int{1, 2, 3, 32} {
		data := bytes.Clone(image[8:])
		var r images.Reader
		r.ResetBytes("the image", data, 8)
		checkMsgbufs(t, &r, room, want)
		checkRestored(t, data, image[8:], func() { r.ResetBytes("another", nil, 0) })

		p := images.NewPart(bytes.NewReader(image), 8, int64(len(image)))
		r.ResetPart("the image", p)
		checkMsgbufs(t, &r, room, want)
		p.Close()
	}
}

func checkMsgbufs(t *testing.T, r *images.Reader, room int, want []queue) {
	t.Helper()
	for _, q := range want {
		must[*images.Queue](t)(r.Queue())
		bufs, messages := make([][]byte, room), q.Messages
		for len(messages) > 0 {
			n := must[int](t)(r.Msgbufs(bufs))
			for _, got := range bufs[:n] {
				m := messages[0]
				wantBuf := append(binary.NativeEndian.AppendUint64(nil, uint64(m.Type)), m.Body...)
				if !bytes.Equal(got, wantBuf) || cap(got) != len(got) {
					t.Fatalf("%s, %d left: another message", &q.Queue, len(messages))
				}
				messages = messages[1:]
			}
		}
		if n, err := r.Msgbufs(bufs); n != 0 || err != io.EOF {
			t.Errorf("after the last message: %d, %v", n, err)
		}
		sum := uint32(0)
		for _, m := range q.Messages {
			sum = images.Checksum(sum, wantMessage(t, m))
		}
		if r.Sum() != sum {
			t.Errorf("%s: sum %#x, want %#x", &q.Queue, r.Sum(), sum)
		}
	}
}

// Every way to go on puts back what the last message buffers were written over.
func TestMsgbufsRestores(t *testing.T) {
	image, _ := plain(t)
	var r images.Reader
	for name, next := range map[string]func(){
		"Message":    func() { r.Message() },
		"Msgbufs":    func() { r.Msgbufs(make([][]byte, 9)); r.Msgbufs(make([][]byte, 9)) },
		"Skip":       func() { r.Skip() },
		"SkipAll":    func() { r.SkipAll(9) },
		"Queue":      func() { r.Queue() },
		"ResetPart":  func() { r.ResetPart("another", images.NewPart(bytes.NewReader(nil), 0, 0)) },
		"ResetBytes": func() { r.ResetBytes("another", nil, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Clone(image[8:])
			r.ResetBytes("the image", data, 8)
			must[*images.Queue](t)(r.Queue())
			must[int](t)(r.Msgbufs(make([][]byte, 1)))
			if bytes.Equal(data, image[8:]) {
				t.Error("the message buffer is a copy")
			}
			checkRestored(t, data, image[8:], next)
		})
	}
}

func checkRestored(t *testing.T, data, want []byte, next func()) {
	t.Helper()
	next()
	if !bytes.Equal(data, want) {
		t.Error("the image is not what it was")
	}
}

// Data that was given with ResetBytes is the caller's: a Part must not be read
// into it.
func TestResetLeavesForeignBytes(t *testing.T) {
	image, want := plain(t)
	data := bytes.Clone(image[8:])
	var r images.Reader
	r.ResetBytes("the image", data, 8)
	other := encode(t, criuQueues()["many"])
	p := images.NewPart(bytes.NewReader(other), 8, int64(len(other)))
	defer p.Close()
	r.ResetPart("another", p)
	if _, err := rest(&r); err != nil || !bytes.Equal(data, image[8:]) {
		t.Errorf("%v, or data was written over", err)
	}
	r.ResetBytes("the image", data, 8)
	got, err := rest(&r)
	if diff := diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}
