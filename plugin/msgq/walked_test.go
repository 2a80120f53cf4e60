package msgq

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/walk"
)

// walkSeedsEnv says how many random namespaces are copied by both methods.
const walkSeedsEnv = "IPC_CR_WALK_NAMESPACES"

func always(w kernel.Walker) func(time.Duration) kernel.Walker {
	return func(time.Duration) kernel.Walker { return w }
}

func realWalker(t testing.TB) kernel.Walker {
	t.Helper()
	nstest.Require(t, "bpf", "root")
	p, err := walk.Open(nil)
	check0(t, err)
	t.Cleanup(func() { check0(t, p.Close()) })
	return p
}

// borders is a queue with messages around the borders of their segments.
func borders(id uint32) box {
	b := newBox(id, 0xb0b)
	for segments := range 20 {
		end := os.Getpagesize() - 48 + segments*(os.Getpagesize()-8)
		for _, size := range []int{end - 1, end, end + 1} {
			b.messages = append(b.messages, letter{int64(size), body(size, size)})
		}
	}
	return b
}

// The images of both methods are the same, byte for byte, and so is what they
// say of the queues.
func TestWalkGivesTheSame(t *testing.T) {
	walker := realWalker(t)
	seeds := 10
	if text, ok := os.LookupEnv(walkSeedsEnv); ok {
		seeds = must(strconv.Atoi(text))
	}
	for seed := range uint64(seeds) {
		w := linuxWorld(t)
		w.put(append(randomBoxes(rand.New(rand.NewPCG(seed, 1))), borders(9999))...)
		copied := w.mustSave()
		w.Walker = always(walker)
		walked := w.mustSave()
		for _, of := range []string{images.MsgKind, images.VarKind} {
			if !bytes.Equal(must(os.ReadFile(copied.Path(of))), must(os.ReadFile(walked.Path(of)))) {
				t.Errorf("namespace %d: the images ipcns-%s differ", seed, of)
			}
		}
		describes := func(s *images.Set) []byte {
			return must(os.ReadFile(filepath.Join(filepath.Dir(s.Path(images.MsgKind)), images.ManifestName(1))))
		}
		if a, b := describes(copied), describes(walked); !bytes.Equal(a, b) {
			t.Errorf("namespace %d: described as\n%s\nand by a walk\n%s", seed, a, b)
		}
	}
}

// A walk that gives what MSG_COPY gives, but for a trick.
type trick struct {
	w     *world
	k     kernel.Kernel
	at    string // the call that fails
	wrong int    // the number of the message with a wrong byte, -1 for none
	does  func() // before End

	q    *kernel.Queue
	next int
	buf  []byte
}

var errTrick = errors.New("trick")

func (f *trick) Walk() kernel.Walk { f.k = f.w.mem.Task(neighbour); return f }
func (f *trick) Release()          {}

func (f *trick) fails(call string) error {
	if f.at == call {
		return errTrick
	}
	return nil
}

func (f *trick) Begin(q *kernel.Queue) error {
	f.q, f.next = q, 0
	return f.fails("Begin")
}

func (f *trick) Next() (int, error) {
	f.buf = make([]byte, 2*sampleBytes)
	n, err := f.k.Copy(f.q.ID, f.buf, f.next)
	f.buf = f.buf[:kernel.HeaderLen+n]
	return n, errors.Join(err, f.fails("Next"))
}

func (f *trick) Read(buf []byte) error {
	copy(buf, f.buf)
	if f.next == f.wrong {
		buf[len(buf)-1] ^= 1
	}
	f.next++
	return f.fails("Read")
}

func (f *trick) End() error {
	if f.does != nil {
		f.does()
	}
	return f.fails("End")
}

func trickWorld(t *testing.T, f *trick) *world {
	w := memoryWorld(t)
	w.put(newBox(4, 4, many(2, 9)...), newBox(5, 5, many(8, 20)...))
	f.w, w.Walker = w, always(f)
	return w
}

func TestTrickIsNone(t *testing.T) {
	w := trickWorld(t, &trick{wrong: -1})
	to := memoryWorld(t)
	to.mustRestore(w.mustSave())
	to.want("restored", w.dump()...)
}

// A walk that fails, or gives what MSG_COPY does not, gives nothing.
func TestWalkThatCannotBeReliedOn(t *testing.T) {
	for name, f := range map[string]*trick{
		"begin": {at: "Begin", wrong: -1}, "next": {at: "Next", wrong: -1}, "read": {at: "Read", wrong: -1}, "end": {at: "End", wrong: -1},
		"first message": {wrong: 0}, "last message": {wrong: 7}, "in between": {wrong: 3},
	} {
		_, err := trickWorld(t, f).save()
		if !errors.Is(err, kind.ErrWalk) || errors.Is(err, kind.ErrChanged) || !strings.Contains(err.Error(), "queue ") {
			t.Errorf("%s: %v, want ErrWalk and a queue", name, err)
		}
		if f.at != "" && !errors.Is(err, errTrick) {
			t.Errorf("%s: %v does not say why", name, err)
		}
	}
}

// Where the queue was used meanwhile the walk is not to blame.
func TestWalkOfAChangingQueue(t *testing.T) {
	f := &trick{at: "End", wrong: -1}
	w := trickWorld(t, f)
	f.does = func() {
		if f.q.ID == 5 {
			w.sendTo(5, letter{1, "more"})
		}
	}
	f.at = ""
	if _, err := w.save(); !errors.Is(err, kind.ErrChanged) {
		t.Errorf("not noticed: %v", err)
	}
	f.does, f.at = func() { w.sendTo(f.q.ID, letter{1, "more"}) }, "End"
	if _, err := w.save(); !errors.Is(err, kind.ErrChanged) || errors.Is(err, kind.ErrWalk) {
		t.Errorf("the walk is blamed: %v", err)
	}
}

// Who may not read a queue gets nothing by a walk.
func TestWalkOfAnUnreadableQueue(t *testing.T) {
	w := trickWorld(t, &trick{wrong: -1})
	w.mem.Fail = nthOf("Copy", 1, unix.EACCES)
	_, err := w.save()
	if !errors.Is(err, unix.EACCES) || errors.Is(err, kind.ErrWalk) || !strings.Contains(err.Error(), "CAP_IPC_OWNER") {
		t.Errorf("%v, want EACCES and what helps", err)
	}
}

// A message that is too long for the sample is compared all the same if it is the
// first, and permission is asked for.
func TestWalkOfLongMessages(t *testing.T) {
	long := func(f *trick) *world {
		w := memoryWorld(t)
		w.put(newBox(4, 4, many(8, sampleBytes+100)...).with(func(b *box) { b.QBytes = 16 << 20 }))
		w.look(func(k kernel.Kernel) { check0(t, k.SetSysctl(msgmax, 4*sampleBytes)) })
		f.w, w.Walker = w, always(f)
		return w
	}
	w := long(&trick{wrong: -1})
	w.mem.Fail = nthOf("Copy", 1, unix.EACCES)
	if _, err := w.save(); !errors.Is(err, unix.EACCES) || errors.Is(err, kind.ErrWalk) {
		t.Errorf("unreadable: %v, want EACCES", err)
	}
	if _, err := long(&trick{wrong: 0}).save(); !errors.Is(err, kind.ErrWalk) {
		t.Errorf("the first is wrong: %v, want ErrWalk", err)
	}
	w = long(&trick{wrong: 2}) // msgmax was lowered below the first two that are asked for
	asked := 0
	w.mem.Fail = func(call string, _ int) error {
		if call == "Copy" {
			asked++
		}
		if call == "Copy" && asked <= 2 {
			return unix.EINVAL
		}
		return nil
	}
	if _, err := w.save(); !errors.Is(err, kind.ErrWalk) {
		t.Errorf("the third is wrong: %v, want ErrWalk", err)
	}
}

func TestWalking(t *testing.T) {
	if one, two := walking(1000, 1), walking(2000, 1); one <= 0 || two < 3*one || two > 5*one {
		t.Errorf("%v and %v for twice as many", one, two)
	}
	if all, spread := walking(1000, 1), walking(1000, 1000); spread*999 > all {
		t.Errorf("%v in one queue, %v in a thousand", all, spread)
	}
	if most := walking(1<<63, 1); most != time.Hour || walking(0, 0) != 0 {
		t.Errorf("%v", most)
	}
}

// Where there are very many queues nobody is to look at each.
func TestWalkingOfManyQueues(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(1, 1, many(200, 1)...), newBox(quickIndexes+1, 2, many(100, 1)...))
	w.look(func(k kernel.Kernel) {
		least, most, err := Kind{}.Walking(k, 0)
		if check0(t, err); least != walking(300, 2) || most != least {
			t.Errorf("at least %v, at most %v", least, most)
		}
	})
}

// Queues that are not worth it one by one are not worth it together: the copy asks
// for none of them.
func TestWalkingOfShortQueues(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(1, 1, many(20, 1)...), newBox(2, 2, many(20, 1)...), newBox(3, 3, many(20, 1)...))
	w.look(func(k kernel.Kernel) {
		for worth, want := range map[time.Duration]time.Duration{walking(20, 1): walking(60, 3), walking(20, 1) + 1: 0} {
			least, most, err := Kind{}.Walking(k, worth)
			if check0(t, err); least != want || most != walking(60, 1) {
				t.Errorf("worth %v: at least %v, at most %v, want at least %v", worth, least, most, want)
			}
		}
	})
}

// What is told of each queue is what the copy asks for, of the chosen ones only.
func TestEachWalking(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(4, 4, many(200, 1)...), newBox(5, 5), newBox(600, 6, many(100, 1)...), newBox(7, 7, many(300, 1)...))
	of := Kind{}.Select(func(key int32, _ uint32) bool { return key != 7 })
	var mu sync.Mutex
	got := map[time.Duration]int{}
	w.look(func(k kernel.Kernel) {
		check0(t, of.EachWalking(w.Target, k, func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			got[d]++
		}))
		least, most, err := of.Walking(k, 0)
		if check0(t, err); least != 0 || most != walking(600, 1) {
			t.Errorf("chosen of 600 messages: at least %v, at most %v", least, most)
		}
		least, most, err = Kind{}.Walking(k, 0)
		if check0(t, err); least != walking(600, 4) || most != walking(600, 1) {
			t.Errorf("600 messages in 4 queues: at least %v, at most %v", least, most)
		}
	})
	if want := map[time.Duration]int{walking(200, 1): 1, walking(100, 1): 1, 0: 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
