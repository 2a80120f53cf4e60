package plugin_test

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// newInPlace is a story of one namespace.
func newInPlace(t *testing.T, queues ...queue) *story {
	t.Helper()
	s := newStory(t, queues...)
	s.target = s.source
	return s
}

// goesOn notes that the container was left running after a checkpoint.
func (s *story) goesOn(dir string, is bool) {
	s.t.Helper()
	m := manifestOf(s.t, dir)
	err := plugin.NoteCheckpointIn(s.t.Context(), s.state, plugin.Checkpointed{
		Namespace: m.Namespace, Boottime: m.Boottime, Created: m.Created, Dir: dir, LeftRunning: is,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// The container was stopped: what its neighbours did since must not be undone,
// unless that is wanted.
func TestInPlaceStopped(t *testing.T) {
	for _, noted := range []bool{false, true} {
		s := newInPlace(t, steady, changes, goes)
		dir := s.checkpoint()
		if noted {
			s.goesOn(dir, true)
			s.goesOn(dir, false)
		}
		do(t, s, takeOne(steady.ID), removeIfThere(changes.ID), sendOne(goes.ID, "x"))
		was := stateOf(t, s.target)
		for _, keep := range []plugin.InPlace{"", plugin.InPlaceKeep, ""} {
			s.restore(dir, actions{plugin.ActionLeave: 3}, inPlace(keep))
			wantSame(t, s.target, was)
		}
		_, err := s.try(dir, inPlace(plugin.InPlaceRefuse))
		wantFailure(t, err, "queue 1 (key 0x11): differs in number of messages", "queue 2 (key 0x22): is not there any more", "queue 3 (key 0x33): differs in number of messages")
		wantSame(t, s.target, was)
		s.restore(dir, actions{plugin.ActionReplace: 2, plugin.ActionMake: 1}, inPlace(plugin.InPlaceRollback))
		wantQueues(t, s.target, steady, changes, goes)
	}
}

// The container went on: its own work cannot be told from its neighbours'.
func TestInPlaceLeftRunning(t *testing.T) {
	for _, c := range []struct {
		name string
		does func(kernel.Kernel) error
		says string
		back actions // with rollback
	}{
		{"received from", takeOne(steady.ID), "queue 1 (key 0x11): differs in number of messages", actions{plugin.ActionKeep: 1, plugin.ActionReplace: 1}},
		{"sent to", sendOne(steady.ID, "x"), "differs in number of messages", actions{plugin.ActionKeep: 1, plugin.ActionReplace: 1}},
		{"closed", chmod(steady, 0o400), "differs in mode", actions{plugin.ActionKeep: 1, plugin.ActionReplace: 1}},
		{"removed", removeIfThere(steady.ID), "is not there any more", actions{plugin.ActionKeep: 1, plugin.ActionMake: 1}},
		{"made anew", anew(aQueue(1+slots, 0x11)), "gave way to queue 32769 (key 0x11)", actions{plugin.ActionKeep: 1, plugin.ActionReplace: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newInPlace(t, steady, changes)
			dir := s.checkpoint()
			s.goesOn(dir, true)
			s.restore(dir, actions{plugin.ActionKeep: 2}) // unchanged
			do(t, s, c.does)
			s.conflicts(plugin.RemedyInPlace, dir, c.says, dir, created(t, dir), "its container went on")
			was := stateOf(t, s.target)
			s.restore(dir, actions{plugin.ActionKeep: 1, plugin.ActionLeave: 1}, inPlace(plugin.InPlaceKeep))
			wantSame(t, s.target, was)
			s.restore(dir, c.back, inPlace(plugin.InPlaceRollback))
			wantQueues(t, s.target, steady, changes)
		})
	}
}

// Of two checkpoints each has its own note.
func TestInPlaceNotes(t *testing.T) {
	s := newInPlace(t, steady)
	first, second := s.checkpoint(), s.checkpoint()
	s.goesOn(first, true)
	do(t, s, takeOne(steady.ID))
	s.refused(first, "went on")
	s.restore(second, actions{plugin.ActionLeave: 1})
	err := plugin.NoteCheckpointIn(t.Context(), s.state, plugin.Checkpointed{Dir: "/d"})
	wantFailure(t, err, "note the checkpoint in /d: without a time or a namespace")
}

// byTasks is the identity on a kernel without ids.
func byTasks(ns *nsenter.Namespace) (id nsenter.Identity, err error) {
	if id, err = ns.Identity(); err == nil {
		id.ID = 0
		id.Tasks, _, err = nsenter.Tasks(ns)
	}
	return id, err
}

// claim makes a checkpoint's JSON file name a namespace.
func claim(t *testing.T, dir string, id nsenter.Identity) {
	t.Helper()
	m := manifestOf(t, dir)
	m.Namespace = images.Source{BootID: id.BootID, ID: id.ID, Inode: id.Inode}
	for _, task := range id.Tasks {
		m.Namespace.Tasks = append(m.Namespace.Tasks, images.SourceTask{PID: task.PID, Start: task.Start})
	}
	writeManifest(t, dir, m)
}

var waitingProgram = nstest.Program("plugin.waiting", func([]string) { select {} })

// Where the kernel gives no ids, one task that is still there is the proof, for
// source and target.
func TestIdentityByTasks(t *testing.T) {
	hidden := func(o *plugin.RestoreOptions) { *o = o.WithIdentity(byTasks) }
	s := newStory(t, steady, changes)
	nstest.Start(t, s.target, waitingProgram)
	neighbour := nstest.Start(t, s.source, waitingProgram)
	dir := s.checkpoint()
	source, err := byTasks(s.source)
	if err != nil {
		t.Fatal(err)
	}
	claim(t, dir, source)
	s.restore(dir, actions{plugin.ActionMake: 2}, hidden)
	do(t, s, removeIfThere(steady.ID))
	nstest.Start(t, s.target, waitingProgram)
	s.restore(dir, actions{plugin.ActionLeave: 2}, hidden)

	// In place, and with nobody left of then.
	s.target = s.source
	within(t, s.source, removeIfThere(steady.ID))
	s.restore(dir, actions{plugin.ActionLeave: 2}, hidden)
	neighbour.Kill()
	s.restore(dir, actions{plugin.ActionMake: 1, plugin.ActionKeep: 1}, hidden)
}
