package msgq

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kerneltest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// sizes are those around the padding of the image and the segments of the
// kernel, and beyond what a fresh namespace takes.
var sizes = []int{0, 1, 7, 8, 9, 4047, 4048, 4049, 8192, 8193, 65536, 1 << 20}

func body(size, seed int) string { return string(kerneltest.Pattern(size, seed)) }

// eachSize is a message of each size, with large and small types.
func eachSize() (letters []letter) {
	for i, size := range sizes {
		letters = append(letters, letter{[]int64{1, math.MaxInt64, 77}[i%3], body(size, i)})
	}
	return letters
}

func many(n, size int) []letter {
	letters := make([]letter, n)
	for i := range letters {
		letters[i] = letter{int64(i%5 + 1), body(size, i)}
	}
	return letters
}

// thorough is a namespace with a bit of everything.
func thorough() []box {
	return []box{
		newBox(0, 0x1234, many(3, 10)...),
		newBox(1, 0, many(1, 0)...),
		newBox(2, 0xffffffff),
		newBox(5, 0x80000000, letter{1, "after a gap"}),
		newBox(6, 0, many(2, 8192)...),
		newBox(100|7<<15, 0x55, eachSize()...).with(func(b *box) { b.QBytes = 4 << 20 }),
		newBox(math.MaxInt32, 0, letter{9, "highest"}),
		newBox(300, 0x300, many(20, 50)...).with(func(b *box) { b.QBytes = 3 }), // lowered below the content
		newBox(301, 0x301, many(2, 50)...).with(func(b *box) { b.QBytes = 0 }),
		newBox(302, 0x302, many(2, 5)...).with(func(b *box) { b.QBytes = math.MaxInt32 }), // raised
		newBox(303, 0x303, letter{1, "x"}).with(func(b *box) { b.Mode = 0 }),
		newBox(304, 0x304, letter{1, "x"}).with(func(b *box) { b.Mode = 0o111 }),
		newBox(305, 0x305).with(func(b *box) { b.Mode = 0o777 }),
		newBox(306, 0x306).with(func(b *box) { b.Mode = 0o011 }),
		newBox(307, 0, many(5000, 1)...).with(func(b *box) { b.QBytes = 16384 }),
		newBox(308, 0x308, many(500, 0)...).with(func(b *box) { b.QBytes = 500 }),
	}
}

// worlds runs a test on the real kernel and on the one in memory.
func worlds(t *testing.T, test func(t *testing.T, fresh func(testing.TB) *world)) {
	t.Run("linux", func(t *testing.T) { nstest.Require(t, "userns"); test(t, linuxWorld) })
	t.Run("memory", func(t *testing.T) { test(t, memoryWorld) })
}

// roundTrip restores what the namespace holds into another one.
func roundTrip(t *testing.T, from, to *world, want ...box) {
	t.Helper()
	before := from.stat()
	set := from.mustSave()
	if after := from.stat(); !equalQueues(before, after) {
		t.Errorf("the checkpoint changed the namespace from %+v to %+v", before, after)
	}
	limits := to.sysctls()
	to.mustRestore(set)
	to.want("restored", want...)
	if got := to.sysctls(); got != limits {
		t.Errorf("the limits are %d, were %d", got, limits)
	}
	again := to.mustSave()
	first, second := must(os.ReadFile(set.Path(images.MsgKind))), must(os.ReadFile(again.Path(images.MsgKind)))
	if !bytes.Equal(first, second) {
		t.Error("a checkpoint of what was restored is another one")
	}
}

// stat returns all queues with times and pids.
func (w *world) stat() (queues []kernel.Queue) {
	w.look(func(k kernel.Kernel) { queues = must(stat(w.Space, k)) })
	return queues
}

func equalQueues(a, b []kernel.Queue) bool {
	return slices.Equal(a, b)
}

func TestRoundTrip(t *testing.T) {
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		from := fresh(t)
		from.put(thorough()...)
		from.want("made", thorough()...)
		roundTrip(t, from, fresh(t), thorough()...)
	})
}

func TestRoundTripOfNothing(t *testing.T) {
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		set := fresh(t).mustSave()
		if _, err := os.Stat(set.Path(images.MsgKind)); !os.IsNotExist(err) {
			t.Errorf("a namespace without queues left %s: %v", set.Path(images.MsgKind), err)
		}
		to := fresh(t)
		to.mustRestore(set)
		to.want("restored")
	})
}

// randomBoxes is a namespace as chance makes it.
func randomBoxes(r *rand.Rand) (boxes []box) {
	index := uint32(0)
	for i := range 1 + r.IntN(60) {
		index += 1 + uint32(r.IntN(3))*uint32(r.IntN(40)) // with gaps
		id := index
		if r.IntN(4) == 0 {
			id |= uint32(r.IntN(1<<16)) << 15
		}
		key := uint32(0)
		if r.IntN(3) > 0 {
			key = uint32(i+1) | r.Uint32()<<8
		}
		b := newBox(id, key)
		for range r.IntN(1 + r.IntN(200)) {
			b.messages = append(b.messages, letter{1 + r.Int64N(1<<uint(1+r.IntN(62))), body(r.IntN(1<<uint(r.IntN(14))), r.Int())})
		}
		b.Mode = uint32(r.IntN(0o1000))
		b.QBytes = uint32(r.IntN(1 << 20))
		boxes = append(boxes, b)
	}
	return boxes
}

func TestRoundTripOfRandomNamespaces(t *testing.T) {
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		for seed := range uint64(10) {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				boxes := randomBoxes(rand.New(rand.NewPCG(seed, 1)))
				from := fresh(t)
				from.put(boxes...)
				roundTrip(t, from, fresh(t), boxes...)
			})
		}
	})
}

func TestRoundTripOfOtherOwners(t *testing.T) {
	nstest.Require(t, "root")
	var boxes []box
	for i, ids := range [][4]uint32{
		{1000, 1001, 2000, 2001}, {0, 5, 0, 0}, {7, 0, 0, 9}, {math.MaxUint32 - 1, 1, math.MaxUint32 - 1, 2},
	} {
		boxes = append(boxes, newBox(uint32(i), uint32(i+1), many(i, 5)...).with(func(b *box) {
			b.UID, b.GID, b.CUID, b.CGID = ids[0], ids[1], ids[2], ids[3]
		}))
	}
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		from := fresh(t)
		from.put(boxes...)
		roundTrip(t, from, fresh(t), boxes...)
	})
}

// Enough queues for several shares, and for several threads over the table.
func TestRoundTripOfManyQueues(t *testing.T) {
	var boxes []box
	for i := range uint32(900) {
		boxes = append(boxes, newBox(i*5, i+1, many(int(i%4), 30)...))
	}
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		from := fresh(t)
		from.put(boxes...)
		roundTrip(t, from, fresh(t), boxes...)
	})
}

// A message longer than the msgmax of now: raised for the copy, and put back.
func TestRoundTripBelowMsgmax(t *testing.T) {
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		boxes := []box{newBox(0, 1, many(3, 10)...), newBox(1, 2, letter{1, body(5000, 1)}, letter{2, body(4000, 2)})}
		from := fresh(t)
		from.put(boxes...)
		from.look(func(k kernel.Kernel) { check0(t, k.SetSysctl(msgmax, 100)) })
		roundTrip(t, from, fresh(t), boxes...)
		if got := from.sysctls()[0]; got != 100 {
			t.Errorf("msgmax is %d, was 100", got)
		}
		changes := from.Limits.Changes()
		if len(changes) != 1 || changes[0].Name != msgmax || changes[0].Old != 100 {
			t.Errorf("changes %+v, want that of %s", changes, msgmax)
		}
		if err := from.restore(from.mustSave(), kind.Fail); err != nil {
			t.Errorf("compared with its own image: %v", err)
		}
		if got := from.sysctls()[0]; got != 100 {
			t.Errorf("compared, msgmax is %d, was 100", got)
		}
	})
}

// What was received leaves a trace in the JSON file, and none in the image.
func TestDetails(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(0, 1, many(2, 10)...), newBox(1, 0), newBox(2, 3, many(1, 10)...))
	must(w.mem.Task(55).Receive(0))
	set := w.mustSave()
	type entry struct {
		ID    int    `json:"msqid"`
		Sum   string `json:"crc32c"`
		LSPID int32  `json:"lspid"`
		LRPID int32  `json:"lrpid"`
		STime string `json:"stime"`
		RTime string `json:"rtime"`
		CTime string `json:"ctime"`
	}
	var entries []entry
	objects := must(os.ReadFile(strings.Replace(set.Path(images.MsgKind), "ipcns-msg-1.img", images.ManifestName(1), 1)))
	var file struct {
		Objects struct {
			Msgq json.RawMessage `json:"msgq"`
		} `json:"objects"`
	}
	check0(t, json.Unmarshal(objects, &file))
	check0(t, json.Unmarshal(file.Objects.Msgq, &entries))
	if len(entries) != 3 {
		t.Fatalf("%d entries in %s", len(entries), file.Objects.Msgq)
	}
	for i, e := range entries {
		if e.ID != i || len(e.Sum) != 8 || e.CTime == "" || (e.LSPID == neighbour) != (i != 1) || (e.LRPID == 55) != (i == 0) || (e.RTime != "") != (i == 0) {
			t.Errorf("entry %d is %+v", i, e)
		}
	}
	if entries[1].Sum != "00000000" || entries[0].Sum == entries[2].Sum {
		t.Errorf("checksums %+v", entries)
	}
}
