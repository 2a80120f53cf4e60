package images_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

// criuQueues are the queues of testdata/criu in the order of the images: what
// make.py there put into the kernel and CRIU took out of it.
func criuQueues() map[string][]queue {
	big := func(i int) int64 { return []int64{1 << 31, 1 << 56}[i] }
	odd := func(i int) int64 { return []int64{127, 128, math.MaxInt64}[i] }
	small := func(i int) int64 { return int64(i) + 1 }
	return map[string][]queue{
		"plain": {
			criuQueue(images.Queue{ID: 0, Key: 0x1234, Mode: 0o600}, small, 0, 1, 7, 8, 9),
			criuQueue(images.Queue{ID: 1, Mode: 0o644}, small),
			criuQueue(images.Queue{ID: 2, Mode: 0o666}, small, 4048),
		},
		"edges": {
			criuQueue(images.Queue{ID: 0, Key: 0x51, Mode: 0o600}, big, 8192, 5),
			criuQueue(images.Queue{ID: 4242, Key: math.MaxUint32, Mode: 0o640, UID: 1000, GID: 1000, CUID: 1000, CGID: 1000}, odd, 8, 0, 16),
			criuQueue(images.Queue{ID: math.MaxInt32 - 1, Key: math.MaxInt32, Mode: 0o777}, small, 4047, 4049),
			criuQueue(images.Queue{ID: math.MaxInt32}, small, 3),
		},
		"many": {criuQueue(images.Queue{Key: 0x77, Mode: 0o600}, func(i int) int64 { return 1 + int64(i*i) }, manySizes()...)},
		"userns": {
			criuQueue(images.Queue{Key: 0x99, Mode: 0o600, UID: 7, GID: 7, CUID: 7, CGID: 7}, small, 8, 9),
		},
	}
}

func manySizes() []int {
	sizes := make([]int, 200)
	for i := range sizes {
		sizes[i] = i % 17
	}
	return sizes
}

func criuQueue(head images.Queue, mtype func(int) int64, sizes ...int) queue {
	head.QBytes, head.QNum = 16384, uint32(len(sizes))
	q := queue{Queue: head}
	for i, size := range sizes {
		q.Messages = append(q.Messages, message{mtype(i), pattern(size)})
	}
	return q
}

func TestReadsCRIUs(t *testing.T) {
	found := criuImages(t, images.MsgKind)
	if want := criuQueues(); len(found) != len(want) {
		t.Errorf("%d images, want %d", len(found), len(want))
	}
	for name, want := range criuQueues() {
		for _, size := range []int64{int64(len(found[name])), -1} {
			got, err := decode(bytes.NewReader(found[name]), size)
			if diff := diff(want, got); diff != "" || err != nil {
				t.Errorf("%s: %v\n%s", name, err, diff)
			}
		}
	}
}

// What ipc-cr writes of the same queues is byte for byte what CRIU wrote.
func TestWritesAsCRIU(t *testing.T) {
	found := criuImages(t, images.MsgKind)
	for name, queues := range criuQueues() {
		if got := encode(t, queues); !bytes.Equal(got, found[name]) {
			t.Errorf("%s: %d bytes, CRIU wrote %d", name, len(got), len(found[name]))
		}
	}
}

func TestVarsAsCRIU(t *testing.T) {
	one := func(n uint32) *uint32 { return &n }
	want := &images.Vars{
		Sem: []uint32{32000, 1024000000, 500, 32000}, MsgMax: 8192, MsgMnb: 16384, MsgMni: 32000,
		ShmMax: math.MaxUint64 - 1<<24, ShmAll: math.MaxUint64 - 1<<24, ShmMni: 4096,
		MqQueuesMax: 256, MqMsgMax: 10, MqMsgsizeMax: 8192, MqMsgDefault: one(10), MqMsgsizeDefault: one(8192),
	}
	for name, image := range criuImages(t, images.VarKind) {
		got, err := images.ReadVars(name, bytes.NewReader(image))
		if diff := diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
			continue
		}
		var again bytes.Buffer
		if err := images.WriteVars(&again, got); err != nil || !bytes.Equal(again.Bytes(), image) {
			t.Errorf("%s: wrote %x, %v, CRIU wrote %x", name, again.Bytes(), err, image)
		}
	}
}
