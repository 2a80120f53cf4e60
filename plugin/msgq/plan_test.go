package msgq

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// original is the one queue of the image in TestDecide.
var original = newBox(5, 0x55, letter{1, "one"}, letter{2, "two"}, letter{1, ""})

func inProgress(b *box) { b.Mode = modeInProgress }

func first(n int) func(*box) {
	return func(b *box) { b.messages = b.messages[:n]; b.Mode = modeInProgress; b.QBytes = 1 << 20 }
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		live   []box
		action [3]kind.Action // with each policy: fail, adopt, replace
		reason string
		others int // strangers
	}{
		{"nothing is there", nil, all(kind.Make), "", 0},
		{"a stranger elsewhere", []box{newBox(6, 0x66)}, all(kind.Make), "", 1},
		{"equal", []box{original}, all(kind.Keep), "", 0},
		{"equal beside a stranger", []box{original, newBox(6, 0)}, all(kind.Keep), "", 1},

		{"a leftover, empty", []box{original.with(first(0))}, all(kind.Remake), "", 0},
		{"a leftover of one message", []box{original.with(first(1))}, all(kind.Remake), "", 0},
		{"a leftover of two messages", []box{original.with(first(2))}, all(kind.Remake), "", 0},
		{"a leftover, complete", []box{original.with(first(3))}, all(kind.Remake), "", 0},
		{"in progress, other messages", []box{original.with(inProgress).with(func(b *box) { b.messages[1].body = "TWO" })}, taken, "mode and messages", 1},
		{"in progress, another type", []box{original.with(inProgress).with(func(b *box) { b.messages[1].mtype = 9 })}, taken, "mode and messages", 1},
		{"in progress, longer messages", []box{original.with(inProgress).with(func(b *box) { b.messages[2].body = "x" })}, taken, "mode and messages", 1},
		{"in progress, shorter messages", []box{original.with(inProgress).with(func(b *box) { b.messages[0].body = "on" })}, taken, "mode and messages", 1},
		{"in progress, more messages", []box{original.with(inProgress).with(func(b *box) { b.messages = append(b.messages, letter{1, "x"}) })}, taken, "mode", 1},
		{"in progress, another creator", []box{original.with(first(1)).with(func(b *box) { b.CUID = 77 })}, taken, "mode", 1},
		{"mode 0 and a part", []box{original.with(first(1)).with(func(b *box) { b.Mode = 0 })}, taken, "mode", 1},

		{"another mode", []box{original.with(func(b *box) { b.Mode = 0o666 })}, taken, "mode", 1},
		{"another owner", []box{original.with(func(b *box) { b.UID = 77 })}, taken, "owner", 1},
		{"another group", []box{original.with(func(b *box) { b.GID = 77 })}, taken, "owner", 1},
		{"another creator", []box{original.with(func(b *box) { b.CUID = 77 })}, adopted, "creator", 1},
		{"another creating group", []box{original.with(func(b *box) { b.CGID = 77 })}, adopted, "creator", 1},
		{"other qbytes", []box{original.with(func(b *box) { b.QBytes-- })}, adopted, "qbytes", 1},
		{"fewer messages", []box{original.with(func(b *box) { b.messages = b.messages[:2] })}, adopted, "number of messages", 1},
		{"more messages", []box{original.with(func(b *box) { b.messages = append(b.messages, letter{1, ""}) })}, adopted, "number of messages", 1},
		{"another order", []box{original.with(func(b *box) { slices.Reverse(b.messages) })}, adopted, "messages", 1},
		{"other bytes", []box{original.with(func(b *box) { b.messages[1].body = "twO" })}, adopted, "messages", 1},

		{"the key elsewhere", []box{newBox(9, 0x55)}, taken, "taken by queue 9 (key 0x55)", 1},
		{"the id with another key", []box{newBox(5, 0x66)}, taken, "taken by queue 5 (key 0x66)", 1},
		{"the id is private", []box{newBox(5, 0)}, taken, "taken by queue 5 (private)", 1},
		{"the slot with another sequence", []box{newBox(5|9<<15, 0x66)}, taken, "taken by queue 294917 (key 0x66)", 1},
		{"the slot and the key", []box{newBox(5|9<<15, 0x55)}, taken, "taken by queue 294917 (key 0x55)", 1},
		{"slot and key of two", []box{newBox(5, 0x66), newBox(9, 0x55)}, taken, "taken by queue 5 (key 0x66)", 2},

		{"a stray", []box{newBox(9, 0x55).with(inProgress)}, all(kind.Remake), "", 0},
		{"a stray with a message", []box{newBox(9, 0x55, letter{1, "one"}).with(inProgress)}, taken, "taken by queue 9", 1},
		{"a stray of another creator", []box{newBox(9, 0x55).with(inProgress).with(func(b *box) { b.CUID = 77 })}, taken, "taken by queue 9", 1},
		{"a stray beside a stranger", []box{newBox(9, 0x55).with(inProgress), newBox(5, 0x66)}, taken, "taken by queue 5", 2},
	} {
		for policy, want := range c.action {
			w := memoryWorld(t)
			w.put(c.live...)
			before := w.dump()
			p, err := w.planned(imageOf(t, original), kind.Policy(policy))
			check0(t, err)
			step := p.Steps(func(kind.Action) bool { return true })[0]
			if step.Action != want || p.Strangers() != c.others || step.Object != "queue 5 (key 0x55)" {
				t.Errorf("%s, policy %d: %+v with %d strangers, want %s with %d", c.name, policy, step, p.Strangers(), want, c.others)
			}
			if (c.reason == "") != (step.Reason == "") || !strings.Contains(step.Reason, c.reason) {
				t.Errorf("%s, policy %d: reason %q, want %q", c.name, policy, step.Reason, c.reason)
			}
			w.want(c.name+", planned", before...)
		}
	}
}

func all(a kind.Action) [3]kind.Action { return [3]kind.Action{a, a, a} }

var (
	taken   = [3]kind.Action{kind.Conflict, kind.Conflict, kind.Replaced}
	adopted = [3]kind.Action{kind.Conflict, kind.Adopted, kind.Replaced}
)

// A queue that was received from is no leftover, whatever its mode.
func TestReceivedFromIsNoLeftover(t *testing.T) {
	w := memoryWorld(t)
	w.put(original.with(first(3)))
	for range original.messages { // all of them: nothing is the beginning of everything
		must(w.mem.Task(neighbour).Receive(5))
	}
	p := must(w.planned(imageOf(t, original), kind.Fail))
	if s := p.steps[0]; s.action != kind.Conflict || p.Strangers() != 1 {
		t.Errorf("%s with %d strangers, want a conflict", s.action, p.Strangers())
	}
}

func TestPrivateIsNeverAdopted(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(0, 0, letter{1, "x"}))
	p := must(w.planned(imageOf(t, newBox(0, 0, letter{1, "y"})), kind.Adopt))
	if p.steps[0].action != kind.Conflict {
		t.Errorf("%s, want a conflict", p.steps[0].action)
	}
	p = must(w.planned(imageOf(t, newBox(0, 0, letter{1, "x"})), kind.Adopt))
	if p.steps[0].action != kind.Keep {
		t.Errorf("an equal one: %s, want %s", p.steps[0].action, kind.Keep)
	}
}

// The bytes that a shorter message leaves in the buffer are not its own.
func TestShorterMessageIsAnother(t *testing.T) {
	b := newBox(5, 5, letter{1, "aa"}, letter{1, "aa"})
	w := memoryWorld(t)
	w.put(b.with(func(b *box) { b.messages[1].body = "a" }))
	p := must(w.planned(imageOf(t, b), kind.Fail))
	if s := p.steps[0]; s.action != kind.Conflict || s.reason != "exists and differs in messages" {
		t.Errorf("%s (%s), want a conflict", s.action, s.reason)
	}
}

// The mode in progress is another one where the queue's own would be that.
func TestInProgressMode(t *testing.T) {
	for mode, want := range map[uint32]uint32{0: 0o111, 0o111: 0o011, 0o011: 0o111, 0o640: 0o111} {
		b := newBox(5, 5, many(2, 2)...).with(func(b *box) { b.Mode = mode })
		w := memoryWorld(t)
		r := &restoring{world: w, set: imageOf(t, b)}
		r.between = func() {
			if got := w.stat()[0].Mode; got != want {
				t.Errorf("mode %#o is made with %#o, want %#o", mode, got, want)
			}
		}
		check0(t, r.run())
		w.want("restored", b)
	}
	// A program's own queue of that mode is equal, and no leftover.
	b := newBox(5, 5, many(2, 2)...).with(inProgress)
	w := memoryWorld(t)
	w.put(b)
	if p := must(w.planned(imageOf(t, b), kind.Fail)); p.steps[0].action != kind.Keep {
		t.Errorf("%s, want %s", p.steps[0].action, kind.Keep)
	}
}

func TestReplace(t *testing.T) {
	stranger := newBox(20, 0x20, letter{1, "stays"})
	for _, c := range []struct {
		name        string
		live, image []box
	}{
		{"same id and key", []box{newBox(5, 5, many(3, 3)...)}, []box{newBox(5, 5, letter{1, "new"})}},
		{"key elsewhere", []box{newBox(9, 5)}, []box{newBox(5, 5, letter{1, "new"})}},
		{"slot and key of two", []box{newBox(5, 9), newBox(9, 5)}, []box{newBox(5, 5, letter{1, "new"})}},
		{"another sequence", []box{newBox(5|3<<15, 9)}, []box{newBox(5, 5, letter{1, "new"})}},
		{"one in the way of two", []box{newBox(5, 9)}, []box{newBox(5, 5, letter{1, "new"}), newBox(9, 9, letter{1, "other"})}},
		{"one in the way of two, the other way", []box{newBox(9, 5)}, []box{newBox(5, 5, letter{1, "new"}), newBox(9, 9, letter{1, "other"})}},
		{"crossed", []box{newBox(5, 9), newBox(9, 5)}, []box{newBox(5, 5, letter{1, "new"}), newBox(9, 9, letter{1, "other"})}},
	} {
		worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
			w := fresh(t)
			w.put(append(slices.Clone(c.live), stranger)...)
			if err := w.restore(imageOf(t, c.image...), kind.Fail); !errors.Is(err, errConflict) {
				t.Errorf("%s: %v, want a conflict", c.name, err)
			}
			w.want(c.name+", refused", append(slices.Clone(c.live), stranger)...)
			if err := w.restore(imageOf(t, c.image...), kind.Replace); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			w.want(c.name, append(slices.Clone(c.image), stranger)...)
		})
	}
}

// Killed right over a queue that came out with another id, in whose slot another
// queue of the image belongs: a plain rerun succeeds.
func TestStrayInTheSlotOfAnother(t *testing.T) {
	image := []box{newBox(0, 0x10, letter{1, "a"}), newBox(5, 0x15, letter{1, "b"})}
	for _, image := range [][]box{image, {image[1], image[0]}} {
		w := memoryWorld(t)
		w.put(newBox(5, 0x10).with(inProgress))
		p := must(w.planned(imageOf(t, image...), kind.Fail))
		if p.Strangers() != 0 || p.removed != 1 {
			t.Errorf("%d strangers, %d removed, want 0 and 1", p.Strangers(), p.removed)
		}
		check0(t, w.restore(imageOf(t, image...), kind.Fail))
		w.want("run again", image...)
	}
}

// Two ids with one index: this kernel has one slot for both.
func TestOneSlotTwice(t *testing.T) {
	there := newBox(5, 5, letter{1, "stays"})
	for _, policy := range []kind.Policy{kind.Fail, kind.Adopt, kind.Replace} {
		w := memoryWorld(t)
		w.put(there)
		err := w.restore(imageOf(t, there, newBox(5|1<<15, 6)), policy)
		if !errors.Is(err, images.ErrFormat) || !strings.Contains(err.Error(), "queue 32773 (key 0x6) and queue 5 (key 0x5)") {
			t.Errorf("%v, want both queues", err)
		}
		w.want("refused", there)
	}
}

func TestNeeds(t *testing.T) {
	w := memoryWorld(t)
	equal, leftover := newBox(1, 1, letter{1, body(9000, 1)}), newBox(2, 2, many(4, 100)...)
	w.put(equal, newBox(9, 0x99))
	w.leave(leftover, 2)
	p := must(w.planned(imageOf(t, equal, leftover,
		newBox(3, 3, letter{1, body(500, 1)}, letter{1, body(700, 1)}).with(func(b *box) { b.QBytes = 10 }),
		newBox(4, 4, many(2000, 0)...).with(func(b *box) { b.QBytes = 20 }),
	), kind.Fail))
	needs := p.Needs()
	// 3 live, one of them made anew, and two new; the equal one asks for nothing
	want := kind.Needs{msgmax: 700, msgmnb: 16384, msgmni: 5}
	if len(needs) != 3 || needs[msgmax] != want[msgmax] || needs[msgmnb] != want[msgmnb] || needs[msgmni] != want[msgmni] {
		t.Errorf("%v, want %v", needs, want)
	}
	p = must(w.planned(imageOf(t, newBox(4, 4, many(2000, 0)...).with(func(b *box) { b.QBytes = 20 })), kind.Fail))
	if got := p.Needs()[msgmnb]; got != 2000 {
		t.Errorf("2000 empty messages need %s %d", msgmnb, got)
	}
	p = must(w.planned(imageOf(t, equal), kind.Fail))
	if needs := p.Needs(); len(needs) != 0 {
		t.Errorf("%v for what is there already", needs)
	}
}

// With msgmni as low as it can be.
func TestNeedsNoMoreQueuesThanItMakes(t *testing.T) {
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		w := fresh(t)
		w.put(newBox(5, 9), newBox(9, 5))
		w.look(func(k kernel.Kernel) { check0(t, k.SetSysctl(msgmni, 2)) })
		image := []box{newBox(5, 5), newBox(9, 9), newBox(10, 10)}
		check0(t, w.restore(imageOf(t, image...), kind.Replace))
		w.want("replaced", image...)
		if changes := w.Limits.Changes(); len(changes) != 1 || changes[0].Raised != 3 {
			t.Errorf("%+v, want %s raised to 3", changes, msgmni)
		}
	})
}

// One live queue stands in the way of two: it goes once, and counts once.
func TestNeedsCountsWhatGoesOnce(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(5, 9))
	p := must(w.planned(imageOf(t, newBox(5, 5), newBox(9, 9)), kind.Replace))
	if got := p.Needs()[msgmni]; got != 2 {
		t.Errorf("needs %s %d, want 2", msgmni, got)
	}
}

// The plan asks for the creators of what it makes, and of nothing else.
func TestMayRestoreIsAsked(t *testing.T) {
	w := memoryWorld(t)
	w.put(original)
	w.mem.Fail = nthOf("MayRestore", 1, unix.EPERM)
	check0(t, w.restore(imageOf(t, original), kind.Fail))
	err := w.restore(imageOf(t, original, newBox(6, 6)), kind.Fail)
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("%v, want EPERM", err)
	}
	w.mem.Fail = nil
	w.want("not allowed", original)
}

// What a neighbour receives from while it is compared is not what the image has; what it
// removes cannot be compared.
func TestRaceWhileComparing(t *testing.T) {
	for name, c := range map[string]struct {
		act   func(w *world)
		errno error
		says  string // the error, or the step
	}{
		"received": {func(w *world) { must(w.mem.Task(neighbour).Receive(5)) }, nil, "exists and differs in messages"},
		"removed":  {func(w *world) { check0(w.t, w.mem.Task(neighbour).Remove(5)) }, unix.EINVAL, "compare queue 5 (key 0x55) with the image: copy message 1: "},
	} {
		w := memoryWorld(t)
		w.put(original)
		copies := 0
		w.mem.Fail = func(call string, _ int) error {
			if call == "Copy" {
				if copies++; copies == 2 {
					c.act(w)
				}
			}
			return nil
		}
		p, err := w.planned(imageOf(t, original), kind.Fail)
		switch {
		case c.errno != nil:
			if !errors.Is(err, c.errno) || !strings.HasPrefix(err.Error(), c.says) {
				t.Errorf("%s: %v, want %v and %q", name, err, c.errno, c.says)
			}
		case err != nil || p.steps[0].action != kind.Conflict || p.steps[0].reason != c.says:
			t.Errorf("%s: %v, %+v, want a conflict that %s", name, err, p, c.says)
		}
	}
}
