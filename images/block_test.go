package images_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/quick"

	"github.com/checkpoint-restore/go-criu/v7/magic"

	"github.com/ipc-cr/ipc-cr/images"
)

// sizes are payloads around the padding, the kernel's first segment of a message
// (ipc/msgutil.c: a page less 48 bytes), CRIU's limit, and beyond.
var sizes = []int{0, 1, 7, 8, 9, 4047, 4048, 4049, 8192, 8193, 65536, 1 << 20}

// types make message records of every length: varints of 1 to 9 bytes.
var types = []int64{1, 127, 128, 1<<14 - 1, 1 << 14, math.MaxInt32, 1 << 35, 1 << 56, math.MaxInt64}

func TestQueueRecordIsCRIUs(t *testing.T) {
	var block images.Block
	same := func(q images.Queue) bool {
		block.Reset()
		block.Queue(&q)
		return bytes.Equal(block.Bytes(), wantQueue(t, &q))
	}
	for _, q := range []images.Queue{{}, {Key: 1, QNum: 127}, allSet(128), allSet(math.MaxUint32)} {
		if !same(q) {
			t.Errorf("%+v: %x, want %x", q, block.Bytes(), wantQueue(t, &q))
		}
	}
	if err := quick.Check(same, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
}

func allSet(n uint32) images.Queue {
	return images.Queue{ID: n, Key: n, UID: n, GID: n, CUID: n, CGID: n, Mode: n, QBytes: n, QNum: n}
}

func TestMessageRecordIsCRIUs(t *testing.T) {
	for _, size := range sizes {
		for _, mtype := range types {
			var block images.Block
			m := message{mtype, pattern(size)}
			put(&block, m, size)
			if !bytes.Equal(block.Bytes(), wantMessage(t, m)) {
				t.Errorf("mtype %d, %d bytes: another record", mtype, size)
			}
		}
	}
}

// The place of a payload is guessed from the record before it: each step from a
// record of one length to another must move the payload, or not.
func TestMessageAfterAnyOther(t *testing.T) {
	for _, first := range types {
		for _, second := range types {
			for _, size := range []int{0, 1, 8, 9, 127, 128, 4048} {
				var block images.Block
				one, two := message{first, pattern(size / 2)}, message{second, pattern(size)}
				put(&block, one, size) // more room than it needs
				put(&block, two, size+100)
				want := append(wantMessage(t, one), wantMessage(t, two)...)
				if !bytes.Equal(block.Bytes(), want) {
					t.Fatalf("mtype %d after %d, %d bytes: %x, want %x", second, first, size, block.Bytes(), want)
				}
			}
		}
	}
}

// A Room that msgrcv found too small is asked for again, larger.
func TestRoomAgain(t *testing.T) {
	var block images.Block
	put(&block, message{300, []byte("first")}, 5)
	want := bytes.Clone(block.Bytes())
	for size := 1; size < 1<<20; size *= 3 {
		place := block.Room(size)
		if len(place) != 8+size || cap(place) != len(place) {
			t.Fatalf("room of %d bytes, capacity %d, for %d", len(place), cap(place), size)
		}
		clear(place)
	}
	if !bytes.Equal(block.Bytes(), want) {
		t.Error("a room overlaps what is finished")
	}
	put(&block, message{2, []byte("second")}, 1<<20)
	if want = append(want, wantMessage(t, message{2, []byte("second")})...); !bytes.Equal(block.Bytes(), want) {
		t.Errorf("%x, want %x", block.Bytes(), want)
	}
}

// The longest record before a payload fits where the shortest was guessed, also
// in a buffer without a byte to spare: 32768 is what the allocator hands out.
func TestRoomHoldsAnyRecord(t *testing.T) {
	for size := 32768 - 64; size <= 32768; size++ {
		var block images.Block
		m := message{math.MaxInt64, pattern(size)}
		put(&block, m, size)
		if !bytes.Equal(block.Bytes(), wantMessage(t, m)) {
			t.Fatalf("%d bytes: another record", size)
		}
	}
}

func TestBlockReset(t *testing.T) {
	var block images.Block
	put(&block, message{math.MaxInt64, pattern(1000)}, 1000)
	held := block.Cap()
	block.Reset()
	if block.Len() != 0 || block.Cap() != held || held < 1000 {
		t.Errorf("%d bytes, %d of memory after Reset, before %d", block.Len(), block.Cap(), held)
	}
	put(&block, message{1, pattern(9)}, 9)
	if want := wantMessage(t, message{1, pattern(9)}); !bytes.Equal(block.Bytes(), want) {
		t.Errorf("%x, want %x", block.Bytes(), want)
	}
}

// Whole images, with random queues: ours are what protobuf makes, and what is
// read from them is what was written.
func TestImageRoundTrip(t *testing.T) {
	for _, counts := range [][]int{{}, {0}, {1}, {0, 0, 2}, {2, 1, 0}, {300, 7}} {
		t.Run(fmt.Sprint(counts), func(t *testing.T) {
			queues := randomQueues(rand.New(rand.NewPCG(1, uint64(len(counts)))), counts)
			image := encode(t, queues)
			if want := wantImage(t, queues...); !bytes.Equal(image, want) {
				t.Fatalf("%d bytes, want %d others", len(image), len(want))
			}
			for _, size := range []int64{int64(len(image)), -1} {
				got, err := decode(bytes.NewReader(image), size)
				if diff := diff(queues, got); diff != "" || err != nil {
					t.Errorf("size %d: %v\n%s", size, err, diff)
				}
			}
		})
	}
}

func randomQueues(random *rand.Rand, counts []int) []queue {
	var queues []queue
	for _, count := range counts {
		q := queue{Queue: images.Queue{
			ID: random.Uint32(), Key: random.Uint32(), Mode: random.Uint32N(0o1000), QNum: uint32(count),
			UID: random.Uint32N(2), GID: random.Uint32(), CUID: random.Uint32(), CGID: random.Uint32(), QBytes: random.Uint32(),
		}}
		for range count {
			body := make([]byte, random.IntN(600))
			for i := range body {
				body[i] = byte(random.Uint32())
			}
			q.Messages = append(q.Messages, message{max(random.Int64()>>random.IntN(63), 1), body})
		}
		queues = append(queues, q)
	}
	return queues
}

func TestHeaders(t *testing.T) {
	table := magic.LoadMagic().ByName
	for kind, name := range map[string]string{
		images.MsgKind: "IPCNS_MSG", images.VarKind: "IPC_VAR", images.SemKind: "IPCNS_SEM", images.ShmKind: "IPCNS_SHM",
	} {
		want := binary.LittleEndian.AppendUint32(nil, uint32(table["IMG_COMMON"]))
		want = binary.LittleEndian.AppendUint32(want, uint32(table[name]))
		var b bytes.Buffer
		if err := images.WriteHeader(&b, kind); err != nil || !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: %x, %v, want %x", kind, b.Bytes(), err, want)
		}
		if got := images.KindOf(bufio.NewReader(&b)); got != kind {
			t.Errorf("%s is said to be %q", kind, got)
		}
	}
	for _, other := range []string{"", "\x19", msgMagic[:7], "\x19\x43\x56\x54\x21\x43\x21\x43", "01234567"} {
		if got := images.KindOf(bufio.NewReader(strings.NewReader(other))); got != "" {
			t.Errorf("%q is said to be %q", other, got)
		}
	}
}
