package msgq

import (
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// longAgo is before, and inAWhile after, whatever a test does.
var longAgo, inAWhile = int64(1), time.Now().Add(time.Hour).Unix()

// planTwice plans with the same image twice, and returns how many messages the second
// one copied.
func planTwice(t *testing.T, w *world, dir *images.Set, first, second kind.Wanted, between func()) (again kind.Action, copies int) {
	t.Helper()
	img := must(Kind{}.Load(ctx, dir, w.Owner))
	defer img.Close()
	check0(t, w.Space.Run(func(k kernel.Kernel) error {
		_, err := img.Plan(ctx, w.Target, k, first)
		check0(t, err)
		if between != nil {
			between()
		}
		w.mem.Fail = func(call string, _ int) error {
			if call == "Copy" {
				copies++
			}
			return nil
		}
		p, err := img.Plan(ctx, w.Target, k, second)
		check0(t, err)
		again = p.Steps(func(kind.Action) bool { return true })[0].Action
		return nil
	}))
	return again, copies
}

// What was compared is not compared again, unless it was used since or might have
// been.
func TestComparedOnce(t *testing.T) {
	letters := many(9, 50)
	equalBox := newBox(5, 5, letters...)
	other := equalBox.with(func(b *box) { b.messages[8].body = "another" })
	for _, c := range []struct {
		name          string
		live          box
		first, second kind.Wanted
		between       func(w *world)
		action        kind.Action
		copies        int
	}{
		{"equal", equalBox, kind.Wanted{Second: inAWhile}, kind.Wanted{Second: inAWhile}, nil, kind.Keep, 0},
		{"different", other, kind.Wanted{Second: inAWhile}, kind.Wanted{Second: inAWhile}, nil, kind.Conflict, 0},
		{"in the same second", equalBox, kind.Wanted{Second: longAgo}, kind.Wanted{Second: inAWhile}, nil, kind.Keep, 9},
		{"the clock was set", equalBox, kind.Wanted{Second: inAWhile}, kind.Wanted{Second: inAWhile, Anew: true}, nil, kind.Keep, 9},
		{"used since", equalBox, kind.Wanted{Second: inAWhile}, kind.Wanted{Second: inAWhile}, func(w *world) {
			must(w.mem.Task(neighbour).Receive(5))
			w.sendTo(5, letters[0])
		}, kind.Conflict, 1},
	} {
		w := memoryWorld(t)
		w.put(equalBox)
		saved := w.mustSave()
		to := memoryWorld(t)
		to.put(c.live)
		between := func() {
			if c.between != nil {
				c.between(to)
			}
		}
		action, copies := planTwice(t, to, saved, c.first, c.second, between)
		if action != c.action || copies != c.copies {
			t.Errorf("%s: %s with %d messages copied, want %s with %d", c.name, action, copies, c.action, c.copies)
		}
	}
}

// A walk compares as MSG_COPY does, and asks for few messages.
func TestComparedByWalk(t *testing.T) {
	letters := many(300, 20)
	full := newBox(5, 5, letters...)
	full.QBytes = 1 << 20
	for _, c := range []struct {
		name   string
		live   func(b *box)
		trick  trick
		action kind.Action
		most   int // messages asked for with MSG_COPY
	}{
		{"equal", func(*box) {}, trick{wrong: -1}, kind.Keep, 305},
		{"the last is another", func(b *box) { b.messages[299].body = "another" }, trick{wrong: -1}, kind.Conflict, 306},
		{"one less", func(b *box) { b.messages = b.messages[:299] }, trick{wrong: -1}, kind.Conflict, 0},
		// What speaks against the walk speaks not against the queue.
		{"a wrong walk", func(*box) {}, trick{wrong: 150}, kind.Keep, 1000},
		{"a walk that fails", func(*box) {}, trick{wrong: -1, at: "End"}, kind.Keep, 1000},
		{"a walk that cannot begin", func(*box) {}, trick{wrong: -1, at: "Begin"}, kind.Keep, 305},
	} {
		from := memoryWorld(t)
		from.put(full)
		saved := from.mustSave()
		to := memoryWorld(t)
		to.put(full.with(c.live))
		f := c.trick
		f.w, to.Walker = to, always(&f)
		asked := 0
		to.mem.Fail = func(call string, _ int) error {
			if call == "Copy" {
				asked++
			}
			return nil
		}
		p := must(to.planned(saved, kind.Fail))
		if got := p.Steps(func(kind.Action) bool { return true })[0].Action; got != c.action || asked > c.most {
			t.Errorf("%s: %s with %d messages asked for, want %s with %d at most", c.name, got, asked, c.action, c.most)
		}
	}
}

// On the real kernel too.
func TestComparedByRealWalk(t *testing.T) {
	walker := realWalker(t)
	w := linuxWorld(t)
	b := newBox(5, 5, many(3000, 1)...)
	w.put(b, borders(9999))
	saved := w.mustSave()
	w.Walker = always(walker)
	began := time.Now()
	p := must(w.planned(saved, kind.Fail))
	t.Logf("compared in %v", time.Since(began))
	for _, step := range p.Steps(func(kind.Action) bool { return true }) {
		if step.Action != kind.Keep {
			t.Errorf("%+v, want it to be equal", step)
		}
	}
	other := linuxWorld(t)
	other.put(b.with(func(b *box) { b.messages[2999].body = "y" }), borders(9999))
	other.Walker = always(walker)
	p = must(other.planned(saved, kind.Fail))
	if steps := p.Steps(func(kind.Action) bool { return true }); steps[0].Action != kind.Conflict || steps[1].Action != kind.Keep {
		t.Errorf("%+v, want the first to differ", steps)
	}
}
