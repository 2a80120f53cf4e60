package msgq

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// changes are what a neighbour can do to queue 5 while it is copied.
var changes = map[string]func(w *world){
	"received": func(w *world) { must(w.mem.Task(neighbour).Receive(5)) },
	"all received": func(w *world) {
		for range w.mustStat(5).QNum {
			must(w.mem.Task(neighbour).Receive(5))
		}
	},
	"sent":    func(w *world) { w.sendTo(5, letter{1, "more"}) },
	"removed": func(w *world) { check0(w.t, w.mem.Task(neighbour).Remove(5)) },
	"removed, the slot taken": func(w *world) {
		check0(w.t, w.mem.Task(neighbour).Remove(5))
		w.put(newBox(5|1<<15, 5, many(10, 20)...))
	},
	"made anew, shorter": func(w *world) { w.anew(many(10, 3)) },
	"made anew, longer":  func(w *world) { w.anew(many(10, 200)) },
	"made anew, one longer": func(w *world) {
		w.anew(append(many(9, 20), letter{1, body(8192, 1)}))
	},
	"made anew, fewer": func(w *world) { w.anew(many(4, 50)) },
	"another owner":    func(w *world) { w.set(5, kernel.Attr{UID: 1000, GID: 1, Mode: 0o640, QBytes: 16384}) },
	"another mode":     func(w *world) { w.set(5, kernel.Attr{Mode: 0o600, QBytes: 16384}) },
	"another limit":    func(w *world) { w.set(5, kernel.Attr{Mode: 0o640, QBytes: 9999}) },
	"a new queue":      func(w *world) { w.put(newBox(9, 9)) },
	"one goes around": func(w *world) {
		w.sendTo(5, letterOf(must(w.mem.Task(neighbour).Receive(5))))
	},
}

func (w *world) mustStat(id int32) kernel.Queue { return must(w.mem.Task(neighbour).Stat(id)) }

func (w *world) sendTo(id int32, l letter) {
	check0(w.t, w.mem.Task(neighbour).Send(id, l.msgbuf()))
}

func (w *world) anew(messages []letter) {
	check0(w.t, w.mem.Task(neighbour).Remove(5))
	w.put(newBox(5, 5, messages...))
}

// Whatever changes, at whatever message: the copy is what the namespace is
// afterwards, or it is good for nothing, says so, and leaves no file.
func TestCopyOfAChangingQueue(t *testing.T) {
	for name, change := range changes {
		accepted := 0
		for at := 1; at <= 10; at++ {
			w := memoryWorld(t)
			w.put(newBox(4, 4, many(2, 9)...), newBox(5, 5, many(8, 20)...), newBox(6, 6, many(2, 9)...))
			copies := 0
			w.mem.Fail = func(call string, _ int) error {
				if call == "Copy" {
					if copies++; copies == at {
						change(w)
					}
				}
				return nil
			}
			set, err := w.save()
			switch {
			case err == nil:
				accepted++
				to := memoryWorld(t)
				to.mustRestore(set)
				to.want(name, w.dump()...)
			case !errors.Is(err, kind.ErrChanged) || !strings.Contains(err.Error(), "queue "):
				t.Errorf("%s at copy %d: %v, want ErrChanged and a queue", name, at, err)
			}
			if copies < at {
				t.Fatalf("%s: only %d copies", name, copies)
			}
		}
		if accepted > 2 {
			t.Errorf("%s: accepted %d times, want only before the queue's turn", name, accepted)
		}
	}
}

// As many messages as before with fewer bytes: the copy itself notices.
func TestCopyMissesBytes(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(5, 5, many(10, 20)...))
	copies := 0
	w.mem.Fail = func(call string, _ int) error {
		if call == "Copy" {
			if copies++; copies == 1 {
				w.anew(many(10, 3))
			}
		}
		return nil
	}
	if err := w.copyTo(io.Discard); !errors.Is(err, kind.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
}

// copyTo copies all queues into a file.
func (w *world) copyTo(file io.Writer) error {
	return w.Space.Run(func(k kernel.Kernel) error { return newJob(ctx, w.Target, must(count(k)), file).run(k) })
}

// listed is a namespace with queues that no kernel would show.
type listed struct {
	kernel.Kernel
	queues []kernel.Queue
}

func (l listed) Table() (kernel.Table, error) {
	table := kernel.Table{Queues: len(l.queues)}
	for _, q := range l.queues {
		table.MaxIndex = max(table.MaxIndex, int(q.ID))
	}
	return table, nil
}

func (l listed) StatIndex(index int, q *kernel.Queue) error {
	i := slices.IndexFunc(l.queues, func(q kernel.Queue) bool { return int(q.ID) == index })
	if i < 0 {
		return unix.EINVAL
	}
	*q = l.queues[i]
	return nil
}

func (l listed) IndexBits() int                           { return 15 }
func (l listed) Run(fn func(k kernel.Kernel) error) error { return fn(l) }

// rechecked is the error of a look at queues that were others before.
func rechecked(was, now []kernel.Queue) error {
	l := listed{queues: now}
	return (&survey{queues: was}).Recheck(&kind.Target{Space: l}, l)
}

func TestRecheck(t *testing.T) {
	base := func() []kernel.Queue {
		return []kernel.Queue{{ID: 1, Key: 1}, {ID: 4, Key: 2}, {ID: 3 * shareIndexes, Key: 3}, {ID: 3*shareIndexes + 7, Key: 4}}
	}
	check0(t, rechecked(base(), base()))
	check0(t, rechecked(nil, nil))
	for i, change := range []func(q *kernel.Queue){
		func(q *kernel.Queue) { q.ID++ }, func(q *kernel.Queue) { q.Key++ },
		func(q *kernel.Queue) { q.UID++ }, func(q *kernel.Queue) { q.GID++ },
		func(q *kernel.Queue) { q.CUID++ }, func(q *kernel.Queue) { q.CGID++ },
		func(q *kernel.Queue) { q.Mode++ }, func(q *kernel.Queue) { q.CBytes++ },
		func(q *kernel.Queue) { q.QNum++ }, func(q *kernel.Queue) { q.QBytes++ },
		func(q *kernel.Queue) { q.LSPID++ }, func(q *kernel.Queue) { q.LRPID++ },
		func(q *kernel.Queue) { q.STime++ }, func(q *kernel.Queue) { q.RTime++ }, func(q *kernel.Queue) { q.CTime++ },
	} {
		for at := range base() {
			other := base()
			change(&other[at])
			for _, err := range []error{rechecked(base(), other), rechecked(other, base())} {
				if !errors.Is(err, kind.ErrChanged) || !strings.HasPrefix(err.Error(), "queue ") {
					t.Errorf("change %d: %v, want ErrChanged and the queue", i, err)
				}
			}
		}
	}
	for at, q := range base() {
		fewer := slices.Delete(base(), at, at+1)
		for _, err := range []error{rechecked(base(), fewer), rechecked(fewer, base())} {
			if !errors.Is(err, kind.ErrChanged) || !strings.HasPrefix(err.Error(), "queue ") {
				t.Errorf("%s more or less: %v", name(&q), err)
			}
		}
	}
}

func TestSize(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(1, 1, many(3, 10)...), newBox(2, 2), newBox(3, 3, many(2, 0)...))
	want := kind.Size{Objects: 3, Messages: 5, Bytes: 30}
	var got kind.Size
	check0(t, w.Space.Run(func(k kernel.Kernel) error {
		got = must(Kind{}.Survey(w.Target, k)).Size()
		return nil
	}))
	if got != want {
		t.Errorf("live: %+v, want %+v", got, want)
	}
	set := w.mustSave()
	if got := must(Kind{}.Load(ctx, set, w.Owner)).Size(); got != want {
		t.Errorf("in the image: %+v, want %+v", got, want)
	}
	w.Done = &kind.Progress{}
	w.mustSave()
	if got := w.Done.Messages(); got != 5 {
		t.Errorf("progress of the copy: %d, want 5", got)
	}
	to := memoryWorld(t)
	to.Done = &kind.Progress{}
	to.mustRestore(set)
	if got := to.Done.Messages(); got != 5 {
		t.Errorf("progress of the restore: %d, want 5", got)
	}
}

func TestCopyErrors(t *testing.T) {
	for errno, says := range map[unix.Errno]string{
		unix.EACCES: "CAP_IPC_OWNER", unix.ENOSYS: "CONFIG_CHECKPOINT_RESTORE", unix.ENOMEM: "cannot allocate memory",
	} {
		w := memoryWorld(t)
		w.put(newBox(5, 5, many(3, 3)...))
		w.mem.Fail = nthOf("Copy", 2, errno)
		_, err := w.save()
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "queue 5 (key 0x5): copy message 1 of 3") {
			t.Errorf("%v: %v, want the message and %q", errno, err, says)
		}
	}
}

// Who ends a copy of long messages need not wait for pollEvery of them.
func TestLongMessagesAreStopped(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(1, 1, many(5, pollBytes/2)...).with(func(b *box) { b.QBytes = 5 * pollBytes }))
	stop, cancel := context.WithCancel(t.Context())
	copies := 0
	w.mem.Fail = func(call string, _ int) error {
		if call == "Copy" {
			copies++
			cancel()
		}
		return nil
	}
	before := ctx
	ctx = stop
	defer func() { ctx = before }()
	if _, err := w.save(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v after %d copies, want it canceled", err, copies)
	}
}

// EINVAL where every message fits msgmax: the queue was gone for a moment.
func TestCopyOfAQueueThatWasGone(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(5, 5, many(3, 3)...))
	w.mem.Fail = nthOf("Copy", 2, unix.EINVAL)
	if _, err := w.save(); !errors.Is(err, kind.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
}

// Every single call of a checkpoint fails: an error, no file, nothing changed.
func TestEachCallOfACopyFails(t *testing.T) {
	boxes := []box{newBox(4, 4, many(2, 9)...), newBox(5, 5, letter{1, body(8000, 1)}, letter{1, body(3, 1)}), newBox(6, 0)}
	for n := 1; ; n++ {
		w := memoryWorld(t)
		w.put(boxes...)
		w.look(func(k kernel.Kernel) { check0(t, k.SetSysctl(msgmax, 100)) })
		before, limits := w.stat(), w.sysctls()
		var call string
		w.mem.Fail = nth(n, unix.EIO, &call)
		_, err := w.save()
		w.mem.Fail = nil
		if call == "" {
			check0(t, err)
			return
		}
		// A queue that cannot be looked at is taken for one that has changed.
		if !errors.Is(err, unix.EIO) && !errors.Is(err, kind.ErrChanged) {
			t.Errorf("call %d (%s) fails: %v", n, call, err)
		}
		check0(t, w.Limits.PutBack())
		if after := w.stat(); !equalQueues(before, after) || w.sysctls() != limits {
			t.Errorf("call %d (%s) fails: %+v, was %+v", n, call, after, before)
		}
	}
}

func TestQBytesBeyondTheFormat(t *testing.T) {
	w := memoryWorld(t)
	w.mem.Have(msgmnb, math.MaxUint32+1)
	must(w.mem.Task(neighbour).Create(5, 0o600, self()))
	_, err := w.save()
	if err == nil || !strings.Contains(err.Error(), "queue 0 (key 0x5): qbytes 4294967296 does not fit") {
		t.Errorf("%v, want the queue and its qbytes", err)
	}
	w.mem.Have(msgmnb, math.MaxUint32)
	w.set(0, kernel.Attr{QBytes: math.MaxUint32})
	w.mustSave()
}

// A full disk is an error and no checkpoint.
func TestCopyToAFullDisk(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(5, 5, many(3, 3)...))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check0(t, err)
	defer full.Close()
	if err := w.copyTo(full); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
}

// The same for a queue that is written while it is copied, wherever the disk
// ends, and the next queue.
func TestCopyOfALargeQueueToAFullDisk(t *testing.T) {
	w := memoryWorld(t)
	large := newBox(5, 5, many(40, 64<<10)...).with(func(b *box) { b.QBytes = 4 << 20 })
	w.put(large, newBox(6, 6, many(3, 3)...))
	var whole bytes.Buffer
	check0(t, w.copyTo(&whole))
	for room := whole.Len() - 1; room >= 0; room -= 50_000 {
		if err := w.copyTo(&fullDisk{room: room}); !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes of %d: %v", room, whole.Len(), err)
		}
	}
}

// What MSG_INFO tells of bytes and messages wraps around at 32 bits: the copy
// must do with anything.
func TestCountsAreGuesses(t *testing.T) {
	for _, count := range []uint32{0, 1, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32} {
		table := kernel.Table{Queues: 1 << 24, MaxIndex: 1<<24 - 1, Messages: count, Bytes: count}
		j := &job{table: table}
		if size := j.size(); size < 0 || count > flushAt && size < flushAt {
			t.Errorf("%d bytes: an image of about %d", count, size)
		}
		if width := copyWidth(table); width < 1 || width > shareQueues {
			t.Errorf("%d bytes: shares of %d queues", count, width)
		}
	}
	s := &survey{table: kernel.Table{Queues: 2, Messages: 1, Bytes: 2}}
	if got, want := s.Size(), (kind.Size{Objects: 2, Messages: 1, Bytes: 2}); got != want {
		t.Errorf("before the copy %+v, want %+v", got, want)
	}
	s.queues = []kernel.Queue{{QNum: 1 << 31, CBytes: 1 << 32}, {QNum: 1 << 31, CBytes: 1}}
	if got, want := s.Size(), (kind.Size{Objects: 2, Messages: 1 << 32, Bytes: 1<<32 + 1}); got != want {
		t.Errorf("after the copy %+v, want %+v", got, want)
	}
}

// The JSON file tells of each queue the checksum that the image gives, whatever
// number of blocks it was written in and by whom.
func TestChecksumOfQueues(t *testing.T) {
	w := memoryWorld(t)
	for i, messages := range []int{0, 1, 10, 40, 200} { // of 16 KB: up to 3.2 MB
		w.put(newBox(uint32(i), uint32(i+1), many(messages, 16_000)...).with(func(b *box) { b.QBytes = 4 << 20 }))
	}
	set := w.mustSave()
	img := must(Kind{}.Load(ctx, set, w.Owner))
	defer img.Close()
	w.look(func(k kernel.Kernel) {
		live := must(Kind{}.Survey(w.Target, k))
		want := must(img.(kind.Verifier).Verify(w.Target, k, live))
		got := must(os.ReadFile(filepath.Join(filepath.Dir(set.Path(images.MsgKind)), images.ManifestName(1))))
		if want.Difference != "" || !bytes.Contains(got, slices.Concat(want.Details...)) {
			t.Errorf("the image has\n%s\n%s, the JSON file\n%s", want.Difference, slices.Concat(want.Details...), got)
		}
	})
}
