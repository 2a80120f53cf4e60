package msgq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// nth fails the nth call, and tells its name.
func nth(wanted int, errno error, name *string) func(string, int) error {
	return func(call string, n int) error {
		if n != wanted {
			return nil
		}
		*name = call
		return fmt.Errorf("%s on demand: %w", call, errno)
	}
}

// nthOf fails the nth call of one method.
func nthOf(method string, wanted int, errno error) func(string, int) error {
	seen := 0
	return func(call string, _ int) error {
		if call == method {
			seen++
		}
		if call != method || seen != wanted {
			return nil
		}
		return errno
	}
}

// faulty is an image with queues of every kind that takes a way of its own
// through a restore: natural ids, others, large messages for several shares.
func faulty() []box {
	return []box{
		newBox(0, 0x10, many(3, 10)...),
		newBox(1, 0, letter{1, body(130000, 1)}).with(func(b *box) { b.QBytes = 200000 }),
		newBox(2, 0x12, letter{1, body(140000, 2)}, letter{2, "x"}).with(func(b *box) { b.QBytes = 100; b.CUID = 1000; b.UID = 1001 }),
		newBox(7, 0x17),
		newBox(4242, 0x18, letter{3, body(150000, 3)}).with(func(b *box) { b.Mode = 0o111 }),
	}
}

// needsAQueue are the calls that concern one queue, which an error has to name.
var needsAQueue = []string{"SetNextID", "Create", "Send", "Remove", "Set", "Copy", "Stat"}

// eachFailure runs a restore once for each call that it makes, with that call
// failing.
func eachFailure(t *testing.T, build func(w *world), boxes, want []box, strangers ...box) {
	for n := 1; ; n++ {
		w := memoryWorld(t)
		build(w)
		limits := w.sysctls()
		set := imageOf(t, boxes...)
		var call string
		w.mem.Fail = nth(n, unix.ENOMEM, &call)
		r := &restoring{world: w, set: set}
		err := r.run()
		w.mem.Fail = nil
		if call == "" {
			check0(t, err)
			w.want("without failure", want...)
			if n < 30 {
				t.Errorf("a restore in %d calls", n)
			}
			return
		}
		when := fmt.Sprintf("call %d (%s) fails", n, call)
		if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), call+" on demand") {
			t.Errorf("%s: %v", when, err)
		}
		if slices.Contains(needsAQueue, call) && !strings.Contains(err.Error(), "queue ") {
			t.Errorf("%s: %q names no queue", when, err)
		}
		if !r.sealed {
			w.want(when, strangers...)
		}
		check0(t, w.Limits.PutBack())
		if got := w.sysctls(); got != limits {
			t.Errorf("%s: the limits are %d, were %d", when, got, limits)
		}
		w.mustRestore(set)
		w.want(when+", run again", want...)
		if t.Failed() {
			return
		}
	}
}

func TestEachCallFailsInAnEmptyNamespace(t *testing.T) {
	eachFailure(t, func(*world) {}, faulty(), faulty())
}

// A namespace in which queues have come and gone: the first natural id is not 0.
func TestEachCallFailsInAUsedNamespace(t *testing.T) {
	eachFailure(t, used, faulty(), faulty())
}

func used(w *world) {
	w.look(func(k kernel.Kernel) {
		for range 3 {
			check0(w.t, k.Remove(must(k.Create(0, 0, self()))))
		}
	})
}

func TestEachCallFailsBesideOthers(t *testing.T) {
	strangers := []box{newBox(3, 0x99, many(3, 3)...), newBox(9, 0, letter{1, "private"})}
	boxes := faulty()
	there := append(slices.Clone(strangers), boxes[0]) // and one that is equal already
	eachFailure(t, func(w *world) { w.put(there...) }, boxes, append(slices.Clone(strangers), boxes...), there...)
}

// A leftover of a killed restore may be gone after another failure: the box is
// not looked for.
func TestEachCallFailsOverLeftovers(t *testing.T) {
	for n := 1; ; n++ {
		w := memoryWorld(t)
		stranger := newBox(3, 0x99, many(3, 3)...)
		w.put(stranger)
		for _, b := range faulty()[:3] {
			w.leave(b, len(b.messages)/2)
		}
		var call string
		w.mem.Fail = nth(n, unix.EIO, &call)
		r := &restoring{world: w, set: imageOf(t, faulty()...)}
		err := r.run()
		w.mem.Fail = nil
		if call == "" {
			check0(t, err)
			return
		}
		check0(t, w.Limits.PutBack())
		if !errors.Is(err, unix.EIO) {
			t.Errorf("call %d (%s) fails: %v", n, call, err)
		}
		w.mustRestore(r.set)
		w.want(fmt.Sprintf("call %d (%s) failed", n, call), append(faulty(), stranger)...)
		if t.Failed() {
			return
		}
	}
}

// leave makes what a restore leaves that was killed after some messages.
func (w *world) leave(b box, messages int) {
	w.put(b.with(func(b *box) {
		b.Mode = (&record{Queue: b.Queue}).inProgressMode()
		b.UID, b.GID = b.CUID, b.CGID
		b.messages = b.messages[:messages]
		b.QBytes = 1 << 20
	}))
}

// Even when the clean-up fails too, the rest of it is done and both are told.
func TestUndoFails(t *testing.T) {
	for _, call := range []string{"Stat", "Remove"} {
		w := memoryWorld(t)
		undoing := false
		w.mem.Fail = func(c string, _ int) error {
			switch {
			case c == "Send":
				undoing = true
				return unix.ENOMEM
			case undoing && c == call:
				undoing = false
				return unix.EIO
			}
			return nil
		}
		err := w.restore(imageOf(t, newBox(5, 1), newBox(6, 2, letter{1, "x"}), newBox(7, 3)), kind.Fail)
		if !errors.Is(err, unix.ENOMEM) || !errors.Is(err, unix.EIO) {
			t.Errorf("%s fails: %v, want both errors", call, err)
		}
		for _, part := range []string{"queue 6 (key 0x2): send message 0 of 1", "remove the unfinished queue 7 (key 0x3)"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s fails: %q does not say %q", call, err, part)
			}
		}
		w.want("not undone", newBox(7, 3).with(func(b *box) { b.Mode = modeInProgress }))
	}
}

func TestErrorsNameTheStep(t *testing.T) {
	for _, c := range []struct {
		call  string
		n     int
		errno unix.Errno
		says  []string
	}{
		{"Send", 2, unix.EAGAIN, []string{"restore queue 5 (key 0x1): send message 1 of 3"}},
		{"Create", 1, unix.ENOSPC, []string{"restore queue 5 (key 0x1)", "kernel.msgmni"}},
		{"Create", 2, unix.EEXIST, []string{"restore queue 6 (private)"}},
		{"SetNextID", 1, unix.EACCES, []string{"restore queue 5 (key 0x1)"}},
		{"Stat", 1, unix.EIO, []string{"restore queue 5 (key 0x1): look at it before it is opened"}},
		{"Set", 2, unix.EPERM, []string{"restore queue 6 (private): set owner, mode and qbytes"}},
		{"Table", 1, unix.EIO, []string{"count the queues"}},
	} {
		w := memoryWorld(t)
		w.mem.Fail = nthOf(c.call, c.n, c.errno)
		err := w.restore(imageOf(t, newBox(5, 1, many(3, 3)...), newBox(6, 0)), kind.Fail)
		if !errors.Is(err, c.errno) {
			t.Errorf("%s: %v, want %v", c.call, err, c.errno)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.call, err, part)
			}
		}
	}
}

// What ends an operation is said in its own words, and where it was by then.
func TestCancelled(t *testing.T) {
	reason := errors.New("enough")
	w := memoryWorld(t)
	want := func(err error, where string) {
		t.Helper()
		if !errors.Is(err, reason) || !strings.Contains(err.Error(), where) {
			t.Errorf("%v, want the reason and %q", err, where)
		}
	}
	set := imageOf(t, newBox(5, 1, many(100, 3)...))
	previous := ctx
	defer func() { ctx = previous }()
	var cancel context.CancelCauseFunc
	ctx, cancel = context.WithCancelCause(ctx)
	w.mem.Fail = func(call string, _ int) error {
		if call == "Send" {
			cancel(reason)
		}
		return nil
	}
	loaded := must(Kind{}.Load(ctx, imageOf(t, newBox(5, 1, many(100, 3)...)), w.Owner))
	want(w.restore(set, kind.Fail), "restore queue 5 (key 0x1): send message 32 of 100: ")
	w.want("cancelled")
	w.mem.Fail = nil
	w.put(newBox(5, 1, many(100, 3)...))
	_, err := w.save()
	want(err, "queue 5 (key 0x1): copy message 0 of 100: ")
	_, err = Kind{}.Load(ctx, set, w.Owner)
	want(err, "queue 5 (key 0x1): read it from ")
	w.look(func(k kernel.Kernel) {
		_, err := loaded.Plan(ctx, w.Target, k, kind.Wanted{})
		want(err, "compare queue 5 (key 0x1) with the image: message 0 of 100: ")
	})
}
