package msgq

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/memkernel"
)

// onThreads runs shares on four threads, whatever the machine has.
func onThreads(t *testing.T, all threads, n int) error {
	t.Helper()
	previous := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(previous)
	space := memkernel.New()
	all.space = space
	return space.Run(func(k kernel.Kernel) error { return all.run(k, splitEvenly(n, 1)) })
}

// dawdle lets other threads go first, as often as chance has it.
func dawdle() {
	for range rand.IntN(200) {
		runtime.Gosched()
	}
}

func TestSplit(t *testing.T) {
	type load struct{ bytes, messages int }
	for _, c := range []struct {
		name   string
		loads  []load
		shares string // lengths
	}{
		{"none", nil, ""},
		{"one", make([]load, 1), "1"},
		{"small ones", make([]load, 600), "256 256 88"},
		{"exactly", make([]load, 512), "256 256"},
		{"bytes", []load{{shareBytes, 1}, {1, 1}, {shareBytes - 1, 1}, {5, 5}}, "1 2 1"},
		{"messages", []load{{1, shareMessages - 1}, {0, 1}, {0, shareMessages * 9}, {0, 0}}, "2 1 1"},
	} {
		shares := split(len(c.loads), func(i int) (int, int) { return c.loads[i].bytes, c.loads[i].messages })
		var lengths []string
		next := 0
		for i, s := range shares {
			if s.number != i || s.from != next {
				t.Errorf("%s: share %d is %+v, want it to begin at %d", c.name, i, s, next)
			}
			lengths = append(lengths, fmt.Sprint(s.to-s.from))
			next = s.to
		}
		if got := strings.Join(lengths, " "); got != c.shares || next != len(c.loads) {
			t.Errorf("%s: shares of %q, want %q", c.name, got, c.shares)
		}
	}
}

func TestSplitEvenly(t *testing.T) {
	for n := range 20 {
		next := 0
		for i, s := range splitEvenly(n, 5) {
			if s.number != i || s.from != next || s.to <= s.from || s.to > s.from+5 {
				t.Errorf("%d: share %d is %+v", n, i, s)
			}
			next = s.to
		}
		if next != n {
			t.Errorf("%d: ends at %d", n, next)
		}
	}
}

func TestOrderIsKept(t *testing.T) {
	const shares = 300
	var file bytes.Buffer
	out := newOrdered(&file)
	err := onThreads(t, threads{fail: out.fail, begin: func() work {
		return func(_ kernel.Kernel, s share) error {
			for part := range 3 {
				dawdle()
				if err := out.write(s.number, fmt.Appendf(nil, "%d.%d ", s.number, part)); err != nil {
					return err
				}
			}
			out.pass(fmt.Appendf(nil, ",%d", s.number))
			return nil
		}
	}}, shares)
	if err != nil {
		t.Fatal(err)
	}
	var want, list strings.Builder
	for i := range shares {
		fmt.Fprintf(&want, "%d.0 %[1]d.1 %[1]d.2 ", i)
		fmt.Fprintf(&list, ",%d", i)
	}
	if file.String() != want.String() {
		t.Errorf("written: %.200s", file.String())
	}
	got := bytes.Join(out.details(), nil)
	if want := "[" + list.String()[1:] + "\n    ]"; string(got) != want {
		t.Errorf("details: %.200s", got)
	}
}

// An error in one share wakes those who wait for their turn, and is the one that
// is told.
func TestErrorWakesAll(t *testing.T) {
	failure := errors.New("an error of its own")
	for bad := range 20 {
		out := newOrdered(&bytes.Buffer{})
		err := onThreads(t, threads{fail: out.fail, begin: func() work {
			return func(_ kernel.Kernel, s share) error {
				if s.number == bad {
					dawdle()
					return failure
				}
				if err := out.write(s.number, []byte("x")); err != nil {
					return err
				}
				out.pass([]byte(","))
				return nil
			}
		}}, 20)
		if !errors.Is(err, failure) || errors.Is(err, errStopped) {
			t.Errorf("share %d fails: %v", bad, err)
		}
	}
}

// fullDisk takes so many bytes and no more.
type fullDisk struct{ room int }

var errFull = errors.New("full")

func (f *fullDisk) Write(b []byte) (int, error) {
	f.room -= len(b)
	if f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteErrorStopsAll(t *testing.T) {
	out := newOrdered(&fullDisk{room: 7})
	var tried atomic.Int32
	err := onThreads(t, threads{fail: out.fail, begin: func() work {
		return func(_ kernel.Kernel, s share) error {
			tried.Add(1)
			if err := out.write(s.number, []byte("x")); err != nil {
				return err
			}
			out.pass([]byte(","))
			return nil
		}
	}}, 1000)
	if !errors.Is(err, errFull) || tried.Load() > 20 {
		t.Errorf("%v after %d shares, want the write's error at once", err, tried.Load())
	}
}

func TestEachThreadBeginsOnce(t *testing.T) {
	var mu sync.Mutex
	begun, done := 0, map[int]int{}
	err := onThreads(t, threads{begin: func() work {
		mu.Lock()
		begun++
		mu.Unlock()
		return func(_ kernel.Kernel, s share) error {
			dawdle()
			mu.Lock()
			defer mu.Unlock()
			done[s.number]++
			return nil
		}
	}}, 100)
	if err != nil || begun < 1 || begun > 4 || len(done) != 100 {
		t.Errorf("%v: begun %d times, %d shares", err, begun, len(done))
	}
	for number, times := range done {
		if times != 1 {
			t.Errorf("share %d was done %d times", number, times)
		}
	}
}

// What runs first and fails wakes the threads that wait for it.
func TestFirstFails(t *testing.T) {
	failure := errors.New("an error of its own")
	ready := newTurns()
	err := onThreads(t, threads{
		fail: ready.fail,
		first: func(kernel.Kernel) error {
			ready.next()
			dawdle()
			return failure
		},
		begin: func() work {
			return func(_ kernel.Kernel, s share) error { return ready.wait(s.number + 1) }
		},
	}, 20)
	if !errors.Is(err, failure) || errors.Is(err, errStopped) {
		t.Error(err)
	}
}

// A namespace that helpers cannot enter is an error, though the work was done.
type lonelySpace struct{ kernel.Space }

func (lonelySpace) Run(func(kernel.Kernel) error) error { return errors.New("no entry") }

func TestHelpersCannotEnter(t *testing.T) {
	previous := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(previous)
	space := memkernel.New()
	all := threads{space: lonelySpace{space}, begin: func() work {
		return func(kernel.Kernel, share) error { return nil }
	}}
	err := space.Run(func(k kernel.Kernel) error { return all.run(k, splitEvenly(5, 1)) })
	if err == nil || err.Error() != "no entry" {
		t.Errorf("%v, want the error of Run", err)
	}
}

// What is copied of a large queue waits in no more memory than a thread may hold,
// or in three blocks.
func TestBlocksBehind(t *testing.T) {
	for size, want := range map[int]int{flushAt: 6, 128 << 10: 6, 256 << 10: 3, 16 << 20: 3} {
		b := newBehind(newOrdered(io.Discard), 0, mostBlocks, nil)
		block, used := &images.Block{}, map[*images.Block]bool{}
		for i := range 40 {
			if block.Cap() < size {
				block.Reserve(size)
			}
			if i >= 20 { // until then blocks may still be left out
				used[block] = true
			}
			block = must(b.swap(parcel{block: block}))
		}
		check0(t, b.finish())
		if b.blocks != want || len(used) > want {
			t.Errorf("blocks of %d bytes: %d go around, %d were used, want %d", size, b.blocks, len(used), want)
		}
	}
}

func TestBlocksFor(t *testing.T) {
	for _, c := range []struct{ messages, bytes, want uint64 }{
		{0, 0, 6}, {1 << 20, 1 << 20, 6}, {500, 500 * 64 << 10, 6}, {8, 8 << 20, 3}, {1, 64 << 20, 3},
	} {
		if got := blocksFor(&kernel.Queue{QNum: c.messages, CBytes: c.bytes}); uint64(got) != c.want {
			t.Errorf("%d messages, %d bytes: %d blocks, want %d", c.messages, c.bytes, got, c.want)
		}
	}
}

// The next large queue goes through the memory of the one before.
func TestBlocksAreUsedAgain(t *testing.T) {
	var spare []*images.Block
	used := map[*images.Block]bool{}
	block := &images.Block{}
	for range 3 {
		b := newBehind(newOrdered(io.Discard), 0, mostBlocks, spare)
		for range 20 {
			used[block] = true
			block = must(b.swap(parcel{block: block}))
		}
		check0(t, b.finish())
		if spare = b.spare(); len(spare) != mostBlocks-1 {
			t.Errorf("%d blocks are left, want %d", len(spare), mostBlocks-1)
		}
	}
	if len(used) != mostBlocks {
		t.Errorf("%d blocks were used for three queues, want %d", len(used), mostBlocks)
	}
}
