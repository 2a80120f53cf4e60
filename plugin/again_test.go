package plugin_test

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// ran notes that the container ran for which a checkpoint was restored.
func (s *story) ran(report *plugin.RestoreReport) {
	s.t.Helper()
	if err := plugin.NoteRanIn(s.t.Context(), s.state, *report.Restored); err != nil {
		s.t.Fatal(err)
	}
}

// nextSecond waits for a second in which nothing has been done yet: in one the kernel's
// time stamps tell nothing apart.
func nextSecond(t *testing.T) {
	t.Helper()
	began := coarseSecond()
	eventually(t, "the next second", func() bool { return coarseSecond() > began })
}

func againBe(a plugin.Again) func(*plugin.RestoreOptions) {
	return func(o *plugin.RestoreOptions) { o.Again = a }
}

// A checkpoint is restored, its container runs, is killed, and the same checkpoint
// is restored again: what was used meanwhile is in doubt.
func TestAgain(t *testing.T) {
	nothing := func(kernel.Kernel) error { return nil }
	for _, c := range []struct {
		name string
		does func(kernel.Kernel) error
		says string
		back actions // with rollback
	}{
		{"unused", nothing, "", actions{plugin.ActionKeep: 2}},
		{"received from", takeOne(steady.ID), "queue 1 (key 0x11): was used since ", actions{plugin.ActionReplace: 1, plugin.ActionKeep: 1}},
		{"sent to", sendOne(steady.ID, "x"), "queue 1 (key 0x11): was used since ", actions{plugin.ActionReplace: 1, plugin.ActionKeep: 1}},
		{"closed", chmod(steady, 0o400), "queue 1 (key 0x11): was used since ", actions{plugin.ActionReplace: 1, plugin.ActionKeep: 1}},
		{"removed", removeIfThere(steady.ID), "queue 1 (key 0x11): was removed since ", actions{plugin.ActionMake: 1, plugin.ActionKeep: 1}},
		{"made anew", anew(aQueue(1+slots, 0x11)), "queue 1 (key 0x11): gave way to queue 32769 (key 0x11) since ", actions{plugin.ActionReplace: 1, plugin.ActionKeep: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, steady, changes)
			dir := s.checkpoint()
			s.ran(s.restore(dir, actions{plugin.ActionMake: 2}))
			do(t, s, c.does)
			was := stateOf(t, s.target)
			if c.says == "" {
				s.restore(dir, actions{plugin.ActionLeave: 2})
			} else {
				s.conflicts(plugin.RemedyAgain, dir, c.says+"the checkpoint of "+created(t, dir)+" in "+dir+" was restored before")
			}
			s.restore(dir, actions{plugin.ActionLeave: 2}, againBe(plugin.AgainKeep))
			wantSame(t, s.target, was)
			s.restore(dir, c.back, againBe(plugin.AgainRollback))
			wantQueues(t, s.target, steady, changes)
		})
	}
}

// A restore whose container never ran can be tried again, whatever the neighbours
// did meanwhile.
func TestAgainWithoutHavingRun(t *testing.T) {
	s := newStory(t, steady, changes)
	dir := s.checkpoint()
	s.restore(dir, actions{plugin.ActionMake: 2})
	do(t, s, takeOne(steady.ID))
	s.restore(dir, actions{plugin.ActionLeave: 2})
}

// The checkpoint of a second container holds the same, and finds it restored,
// whatever has become of it; restored again itself, only of what happened since
// then counts.
func TestAgainOfSecondContainer(t *testing.T) {
	s := newStory(t, steady, changes)
	first, second := s.checkpoint(), s.checkpoint()
	s.ran(s.restore(first, actions{plugin.ActionMake: 2}))
	do(t, s, takeOne(changes.ID))
	nextSecond(t)
	s.ran(s.restore(second, actions{plugin.ActionLeave: 2}))
	s.restore(second, actions{plugin.ActionLeave: 2})
	s.conflicts(plugin.RemedyAgain, first, "queue 2 (key 0x22): was used since ")
	do(t, s, takeOne(steady.ID))
	s.conflicts(plugin.RemedyAgain, second, "queue 1 (key 0x11): was used since ")
}

// The command that the refusal advises puts all back, whatever is equal already, and
// the next restore of the checkpoint finds it restored.
func TestAgainAfterReplace(t *testing.T) {
	s := newStory(t, steady, changes)
	dir := s.checkpoint()
	s.ran(s.restore(dir, actions{plugin.ActionMake: 2}))
	nextSecond(t)
	do(t, s, sendOne(steady.ID, "x"), anew(changes)) // the second one is equal again
	s.conflicts(plugin.RemedyAgain, dir, "queue 1 (key 0x11): was used since ", "queue 2 (key 0x22): ")
	s.restore(dir, actions{plugin.ActionReplace: 1, plugin.ActionKeep: 1}, policy(plugin.Replace))
	report := s.restore(dir, actions{plugin.ActionLeave: 2})
	s.ran(report)
	do(t, s, takeOne(steady.ID))
	s.conflicts(plugin.RemedyAgain, dir, "queue 1 (key 0x11): was used since ")
}

// A replace that is killed before it came to an object leaves it as it is: used.
func TestAgainAfterInterruptedReplace(t *testing.T) {
	s := newStory(t, steady, changes)
	dir := s.checkpoint()
	s.ran(s.restore(dir, actions{plugin.ActionMake: 2}))
	nextSecond(t)
	do(t, s, takeOne(steady.ID))
	nstest.Start(t, s.target, replaceKilledProgram, s.state, dir, "beginning").Wait()
	s.conflicts(plugin.RemedyAgain, dir, "queue 1 (key 0x11): was used since ")
	s.restore(dir, actions{plugin.ActionReplace: 1, plugin.ActionKeep: 1}, policy(plugin.Replace))
	wantQueues(t, s.target, steady, changes)
	if left := savedFiles(t, s.state); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// Where the clock was set back since, no time stamp tells that an object was not used.
func TestAgainAfterClockSetBack(t *testing.T) {
	s := newStory(t, steady, changes)
	dir := s.checkpoint()
	report := s.restore(dir, actions{plugin.ActionMake: 2})
	report.Restored.Second += 1000 // as it was read before the clock was set back
	s.ran(report)
	s.restore(dir, actions{plugin.ActionLeave: 2}) // all is as the restore left it
	do(t, s, takeOne(steady.ID))
	s.conflicts(plugin.RemedyAgain, dir, "queue 1 (key 0x11): was used since ")
}

// So it is with an older checkpoint, of which nothing was made.
func TestAgainOfOlder(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	earlier, later := s.twoCheckpoints()
	s.ran(s.restore(later, actions{plugin.ActionMake: 3}))
	s.ran(s.restore(earlier, actions{plugin.ActionLeave: 3}))
	s.restore(earlier, actions{plugin.ActionLeave: 3}) // the one that is not there was missing then, too
	do(t, s, takeOne(steady.ID))
	s.conflicts(plugin.RemedyAgain, earlier, "queue 1 (key 0x11): was used since ")
}

// In place, too: what neighbours did before the first restore does not count, what
// happened after it does.
func TestAgainInPlace(t *testing.T) {
	s := newInPlace(t, steady, changes, goes)
	dir := s.checkpoint()
	do(t, s, takeOne(changes.ID), removeIfThere(goes.ID))
	nextSecond(t)
	s.ran(s.restore(dir, actions{plugin.ActionLeave: 3}))
	s.restore(dir, actions{plugin.ActionLeave: 3})
	do(t, s, takeOne(steady.ID))
	s.conflicts(plugin.RemedyAgain, dir, "queue 1 (key 0x11): was used since ")
	s.restore(dir, actions{plugin.ActionReplace: 2, plugin.ActionMake: 1}, againBe(plugin.AgainRollback))
	wantQueues(t, s.target, steady, changes, goes)
}
