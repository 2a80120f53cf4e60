package plugin_test

import (
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// The queues of a source, and what becomes of them until its later checkpoint:
// one stays the same, one changes, one goes and one comes.
var (
	steady  = aQueue(1, 0x11, "a", "b")
	changes = aQueue(2, 0x22, "c")
	goes    = aQueue(3, 0x33, "d")
	comes   = aQueue(4, 0x44, "e")

	changed = aQueue(2, 0x22, "c", "more")
)

func init() { changed.Messages[1].Type = 9 }

// twoCheckpoints returns an earlier and a later one.
func (s *story) twoCheckpoints() (earlier, later string) {
	s.t.Helper()
	earlier = s.checkpoint()
	within(s.t, s.source, func(k kernel.Kernel) error {
		if err := sendOne(changes.ID, "more")(k); err != nil {
			return err
		}
		if err := k.Remove(goes.ID); err != nil {
			return err
		}
		return makeQueue(k, comes)
	})
	return earlier, s.checkpoint()
}

func do(t *testing.T, s *story, steps ...func(kernel.Kernel) error) {
	t.Helper()
	for _, step := range steps {
		within(t, s.target, step)
	}
}

// What was saved once is restored once, whatever has become of it since.
func TestSameAgain(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	dir := s.checkpoint()
	s.restore(dir, actions{plugin.ActionMake: 3})
	wantQueues(t, s.target, steady, changes, goes)
	do(t, s, takeOne(steady.ID), removeIfThere(changes.ID), sendOne(goes.ID, "x"))
	was := stateOf(t, s.target)
	report := s.restore(dir, actions{plugin.ActionLeave: 3})
	wantSame(t, s.target, was)
	want := "restored before from the checkpoint of " + created(t, dir) + " in " + dir + ": left alone"
	if report.Steps[0].Reason != want || report.LimitsSet || len(report.Warnings) > 0 || report.Recorded == "" {
		t.Errorf("report %+v, want the reason %q", report, want)
	}
}

// The later one first: the earlier one brings nothing back.
func TestOlderComesLater(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	earlier, later := s.twoCheckpoints()
	s.restore(later, actions{plugin.ActionMake: 3})
	do(t, s, takeOne(steady.ID))
	was := stateOf(t, s.target)
	s.restore(earlier, actions{plugin.ActionLeave: 3})
	wantSame(t, s.target, was)
	s.restore(later, actions{plugin.ActionLeave: 3}) // the record was not changed
	wantSame(t, s.target, was)
}

func TestLater(t *testing.T) {
	other := aQueue(2, 0x22, "other")
	otherID := aQueue(2+slots, 0x22, "c")
	taken := aQueue(1, 0x11, "b")
	taken.Messages[0].Type = 2
	full := actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1, plugin.ActionMake: 1, plugin.ActionRemove: 1}
	kept := actions{plugin.ActionLeave: 2, plugin.ActionMake: 1, plugin.ActionRemove: 1}
	with := func(q queue, text string) queue {
		q.Messages = append(slices.Clone(q.Messages), message{9, text})
		return q
	}
	empty := changes
	empty.Messages = nil
	for _, c := range []struct {
		name   string
		does   func(kernel.Kernel) error
		says   string // "" if it is not refused
		action actions
		after  []queue // with later = "keep" where it is refused
	}{
		{"nothing is used", nil, "", full, []queue{steady, changed, comes}},
		{"the steady one is received from", takeOne(steady.ID), "", full, []queue{taken, changed, comes}},
		{"the steady one is sent to", sendOne(steady.ID, "x"), "", full, []queue{with(steady, "x"), changed, comes}},
		{"the steady one is removed", removeIfThere(steady.ID), "", full, []queue{changed, comes}},
		{"the steady one is made anew", anew(aQueue(1+slots, 0x11)), "", full, []queue{aQueue(1+slots, 0x11), changed, comes}},
		{"the changed one is received from", takeOne(changes.ID), "was received from", kept, []queue{steady, empty, comes}},
		{"the changed one is sent to", sendOne(changes.ID, "x"), "was sent to", kept, []queue{steady, with(changes, "x"), comes}},
		{"the changed one is closed", chmod(changes, 0o400), "was changed", kept, []queue{steady, withMode(changes, 0o400), comes}},
		{"the changed one is removed", removeIfThere(changes.ID), "was removed", kept, []queue{steady, comes}},
		{"the changed one is made anew", anew(other), "was ", kept, []queue{steady, other, comes}},
		{"the changed one has another id", anew(otherID), "was removed", kept, []queue{steady, otherID, comes}},
		{"the one that goes is received from", takeOne(goes.ID), "is not in", actions{plugin.ActionLeave: 2, plugin.ActionReplace: 1, plugin.ActionMake: 1},
			[]queue{steady, changed, func() queue { q := goes; q.Messages = nil; return q }(), comes}},
		{"the one that goes is sent to", sendOne(goes.ID, "x"), "was sent to", actions{plugin.ActionLeave: 2, plugin.ActionReplace: 1, plugin.ActionMake: 1},
			[]queue{steady, changed, with(goes, "x"), comes}},
		{"the one that goes is gone", removeIfThere(goes.ID), "", actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1, plugin.ActionMake: 1}, []queue{steady, changed, comes}},
		{"a stranger", func(k kernel.Kernel) error { return makeQueue(k, aQueue(9, 0x99)) }, "", full, []queue{steady, changed, comes, aQueue(9, 0x99)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t, steady, changes, goes)
			earlier, later := s.twoCheckpoints()
			s.restore(earlier, actions{plugin.ActionMake: 3})
			if c.does != nil {
				do(t, s, c.does)
			}
			if c.says == "" {
				s.restore(later, c.action)
			} else {
				s.conflicts(plugin.RemedyLater, later, c.says, earlier, later, created(t, earlier))
				s.restore(later, c.action, laterKeep)
			}
			wantQueues(t, s.target, c.after...)
			was := stateOf(t, s.target)
			s.restore(later, actions{plugin.ActionLeave: 3}) // it is the recorded one now
			s.restore(earlier, actions{plugin.ActionLeave: 3})
			wantSame(t, s.target, was)
		})
	}
}

// A queue that was made anew in the source takes the place of the one before it,
// unless somebody has used that.
func TestLaterMadeAnew(t *testing.T) {
	again := aQueue(1+slots, 0x11, "again")
	for _, used := range []bool{false, true} {
		s := newStory(t, steady)
		earlier := s.checkpoint()
		within(t, s.source, anew(again))
		later := s.checkpoint()
		s.restore(earlier, actions{plugin.ActionMake: 1})
		if !used {
			s.restore(later, actions{plugin.ActionReplace: 1})
			wantQueues(t, s.target, again)
			continue
		}
		do(t, s, takeOne(steady.ID))
		was := stateOf(t, s.target)
		s.refused(later, "was received from", earlier, later)
		s.restore(later, actions{plugin.ActionLeave: 2}, laterKeep)
		wantSame(t, s.target, was)
	}
}

// Three in a row: what the second left alone is still as the first left it.
func TestThreeInARow(t *testing.T) {
	s := newStory(t, steady, changes)
	first := s.checkpoint()
	within(t, s.source, sendOne(changes.ID, "more"))
	second := s.checkpoint()
	within(t, s.source, sendOne(steady.ID, "x"))
	third := s.checkpoint()
	s.restore(first, actions{plugin.ActionMake: 2})
	s.restore(second, actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1})
	s.restore(third, actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1})
	wantSameQueues(t, s)
}

func wantSameQueues(t *testing.T, s *story) {
	t.Helper()
	wantQueues(t, s.target, stateOf(t, s.source).Queues...)
}

// A private queue of another's with the id of the image's stays a conflict, and
// the claim of an image's source does not change that.
func TestPrivateStaysAConflict(t *testing.T) {
	s := newStory(t, aQueue(0, 0, "mine"))
	dir := s.checkpoint()
	fill(t, s.target, aQueue(0, 0, "another's"))
	s.refused(dir, "queue 0 (private): exists and differs in messages")
	another := newStory(t, aQueue(0, 0, "x"))
	another.target, another.state = s.target, s.state
	another.refused(another.checkpoint(), "queue 0 (private): exists and differs in messages")
}

// Without a JSON file the objects decide, one by one, and nothing is recorded.
func TestAdoptWithoutManifest(t *testing.T) {
	s := newStory(t, steady, changes)
	dir := s.checkpoint()
	withoutManifest(t, dir)
	s.restore(dir, actions{plugin.ActionMake: 2})
	do(t, s, takeOne(steady.ID), removeIfThere(changes.ID))
	s.conflicts(plugin.RemedyExisting, dir, "queue 1 (key 0x11): exists and differs in number of messages")
	report := s.restore(dir, actions{plugin.ActionAdopt: 1, plugin.ActionMake: 1}, existingAdopt)
	if len(report.Warnings) != 1 || report.Recorded != "" || len(s.recordFiles()) != 0 {
		t.Errorf("report %+v, records %q", report, s.recordFiles())
	}
}

// Fail and Replace are not bound by the record, and are recorded.
func TestExplicitWord(t *testing.T) {
	for _, word := range []plugin.Policy{plugin.Fail, plugin.Replace} {
		s := newStory(t, steady, changes, goes)
		earlier, later := s.twoCheckpoints()
		s.restore(earlier, actions{plugin.ActionMake: 3}, policy(word))
		do(t, s, removeIfThere(steady.ID))
		s.restore(earlier, actions{plugin.ActionLeave: 3}) // was recorded
		s.restore(earlier, actions{plugin.ActionMake: 1, plugin.ActionKeep: 2}, policy(word))
		wantQueues(t, s.target, steady, changes, goes)
		s.restore(later, actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1, plugin.ActionMake: 1, plugin.ActionRemove: 1})
		s.restore(earlier, actions{plugin.ActionKeep: 1, plugin.ActionReplace: 1, plugin.ActionMake: 1}, policy(plugin.Replace))
		s.restore(later, actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1, plugin.ActionKeep: 1, plugin.ActionRemove: 1}) // from the earlier one again
	}
}

// What a restore into a fresh namespace made, the next one finds recorded.
func TestFreshIsRecorded(t *testing.T) {
	s := newStory(t, steady)
	dir := s.checkpoint()
	s.restore(dir, actions{plugin.ActionMake: 1}, policy(plugin.Fail), func(o *plugin.RestoreOptions) { o.Fresh = true })
	do(t, s, removeIfThere(steady.ID))
	s.restore(dir, actions{plugin.ActionLeave: 1})
	wantQueues(t, s.target)
}

// A dry run tells what would be done, and changes neither queues nor record.
func TestDryRunReadsTheRecord(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	earlier, later := s.twoCheckpoints()
	dry := func(o *plugin.RestoreOptions) { o.DryRun = true }
	s.restore(earlier, actions{plugin.ActionMake: 3}, dry)
	if files := s.recordFiles(); len(files) > 0 {
		t.Errorf("a dry run wrote %q", files)
	}
	s.restore(earlier, actions{plugin.ActionMake: 3})
	was := stateOf(t, s.target)
	s.restore(later, actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1, plugin.ActionMake: 1, plugin.ActionRemove: 1}, dry)
	wantSame(t, s.target, was)
	s.restore(earlier, actions{plugin.ActionLeave: 3}, dry)
}
