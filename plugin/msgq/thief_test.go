package msgq

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// steal lets a neighbour act right before a Create, so often.
func (w *world) steal(times int, act func(k kernel.Kernel)) *int {
	creates := 0
	w.mem.Fail = func(call string, _ int) error {
		if call == "Create" {
			creates++
			if creates <= times {
				act(w.mem.Task(neighbour))
			}
		}
		return nil
	}
	return &creates
}

// The id that was asked for goes to a neighbour's queue, which does not live
// long: tried again.
func TestIDIsStolenAndGivenBack(t *testing.T) {
	for times := range stolen {
		w := memoryWorld(t)
		creates := w.steal(times, func(k kernel.Kernel) {
			check0(t, k.Remove(must(k.Create(0, 0, self()))))
		})
		boxes := []box{newBox(4242, 5, many(3, 3)...), newBox(7, 0)}
		check0(t, w.restore(imageOf(t, boxes...), kind.Fail))
		w.want("restored", boxes...)
		if *creates != times+2 {
			t.Errorf("stolen %d times: %d creates", times, *creates)
		}
	}
}

// A neighbour that asks for an id of its own in between.
func TestNextIDIsOverwritten(t *testing.T) {
	w := memoryWorld(t)
	w.steal(3, func(k kernel.Kernel) { check0(t, k.SetNextID(99)) })
	boxes := []box{newBox(4242, 5, many(3, 3)...), newBox(7, 0)}
	check0(t, w.restore(imageOf(t, boxes...), kind.Fail))
	w.want("restored", boxes...)
}

func TestIDIsStolenForGood(t *testing.T) {
	for _, id := range []uint32{4242, 0} { // asked for, and natural
		w := memoryWorld(t)
		creates := w.steal(1, func(k kernel.Kernel) { must(k.Create(0x77, 0o600, self())) })
		err := w.restore(imageOf(t, newBox(id, 5, many(3, 3)...), newBox(7, 0)), kind.Fail)
		if err == nil || !strings.Contains(err.Error(), "the id is taken by queue") || !strings.Contains(err.Error(), "(key 0x77)") {
			t.Errorf("%v, want the occupant", err)
		}
		if *creates != stolen {
			t.Errorf("tried %d times, want %d", *creates, stolen)
		}
		thief := newBox(id, 0x77)
		thief.Mode = 0o600
		w.want("stolen", thief)
	}
}

// The neighbour's queue stands elsewhere, and stays: only what is ours goes.
func TestThiefTakesTheNaturalID(t *testing.T) {
	w := memoryWorld(t)
	thieves := []box{newBox(0, 0x77), newBox(5, 0x78)}
	w.steal(1, func(k kernel.Kernel) {
		for i := range thieves {
			w.make(k, &thieves[i])
		}
	})
	err := w.restore(imageOf(t, newBox(0, 5), newBox(1, 6)), kind.Fail)
	if want := "restore queue 0 (key 0x5): msgget: the id is taken by queue 0 (key 0x77)"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	w.want("stolen", thieves...)
}

// key and all: what a neighbour makes with our key is a stranger's.
func TestKeyIsTakenMeanwhile(t *testing.T) {
	w := memoryWorld(t)
	w.steal(1, func(k kernel.Kernel) {
		b := newBox(50, 5, letter{1, "neighbour"})
		w.make(k, &b)
	})
	err := w.restore(imageOf(t, newBox(4242, 5, many(3, 3)...), newBox(7, 0)), kind.Fail)
	if !errors.Is(err, unix.EEXIST) || !strings.HasPrefix(err.Error(), "restore queue 4242 (key 0x5): ") {
		t.Errorf("%v, want EEXIST and the queue", err)
	}
	w.want("taken", newBox(50, 5, letter{1, "neighbour"}))
}

// disturbances are what a neighbour with CAP_IPC_OWNER can do to a queue in the
// making, and the field by which it is noticed.
var disturbances = []struct {
	name, says string
	act        func(w *world, id int32)
	stays      bool // the queue is no longer ours to remove
}{
	{"owner", "changed its owner", func(w *world, id int32) {
		w.set(id, kernel.Attr{UID: 1234, GID: self().GID, Mode: modeInProgress, QBytes: 1000})
	}, false},
	{"group", "changed its owner", func(w *world, id int32) {
		w.set(id, kernel.Attr{UID: self().UID, GID: 1234, Mode: modeInProgress, QBytes: 1000})
	}, false},
	{"mode", "changed its mode", func(w *world, id int32) {
		w.set(id, kernel.Attr{UID: self().UID, GID: self().GID, Mode: 0o666, QBytes: 1000})
	}, true},
	{"received", "changed its messages while", func(w *world, id int32) { must(w.mem.Task(neighbour).Receive(id)) }, false},
	{"sent", "changed its messages while", func(w *world, id int32) {
		check0(w.t, w.mem.Task(neighbour).Send(id, letter{1, "x"}.msgbuf()))
	}, false},
	{"received and sent", "changed its last sender", func(w *world, id int32) {
		m := must(w.mem.Task(neighbour).Receive(id))
		check0(w.t, w.mem.Task(neighbour).Send(id, m))
	}, false},
	{"received and sent as ourselves", "received", func(w *world, id int32) {
		m := must(w.mem.Task(neighbour).Receive(id))
		check0(w.t, w.mem.Run(func(k kernel.Kernel) error { return k.Send(id, m) }))
	}, false},
	{"removed", "look at it", func(w *world, id int32) { check0(w.t, w.mem.Task(neighbour).Remove(id)) }, false},
	{"another key", "changed its key", func(w *world, id int32) { w.exchange(id, 0x77, modeInProgress, self()) }, true},
	{"another creator", "changed its creator", func(w *world, id int32) {
		w.exchange(id, 0x5, modeInProgress, kernel.Creator{UID: 1234})
	}, false},
	{"another length", "changed its messages while", func(w *world, id int32) {
		w.exchange(id, 0x5, modeInProgress, self())
		check0(w.t, w.mem.Run(func(k kernel.Kernel) error { return k.Send(id, letter{1, "xx"}.msgbuf()) }))
	}, false},
}

func (w *world) set(id int32, attr kernel.Attr) {
	check0(w.t, w.mem.Task(neighbour).Set(id, attr))
}

// exchange puts another queue where one was.
func (w *world) exchange(id, key int32, mode uint32, creator kernel.Creator) {
	k := w.mem.Task(neighbour)
	check0(w.t, k.Remove(id))
	check0(w.t, k.SetNextID(id))
	must(k.Create(key, mode, creator))
}

func TestDisturbed(t *testing.T) {
	for _, d := range disturbances {
		t.Run(d.name, func(t *testing.T) {
			w := memoryWorld(t)
			stranger := newBox(3, 0x99, many(2, 2)...)
			w.put(stranger)
			r := &restoring{world: w, set: imageOf(t, newBox(4, 4), newBox(5, 5, many(1, 3)...), newBox(6, 0, many(2, 9)...))}
			r.between = func() { d.act(w, 5) }
			err := r.run()
			if err == nil || !strings.Contains(err.Error(), "queue 5 (key 0x5)") || !strings.Contains(err.Error(), d.says) {
				t.Errorf("%v, want queue 5 and %q", err, d.says)
			}
			left := len(w.stat())
			if want := map[bool]int{false: 1, true: 2}[d.stays]; left != want {
				t.Errorf("%d queues are left, want %d", left, want)
			}
		})
	}
}
