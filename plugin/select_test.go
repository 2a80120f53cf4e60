package plugin_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// only chooses our queues with these keys.
func only(keys ...int32) []plugin.Kind {
	return plugin.Select(kinds, func(key int32, uid uint32) bool {
		return slices.Contains(keys, key) && uid == uint32(os.Geteuid())
	})
}

func trySaveOnly(t testing.TB, ns *nsenter.Namespace, dir string, keys ...int32) error {
	_, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: only(keys...), Namespace: ns, Dir: dir, Number: 1, Force: true})
	return err
}

func selected(keys ...int32) func(*plugin.RestoreOptions) {
	return func(o *plugin.RestoreOptions) { o.Kinds, o.Selected = only(keys...), true }
}

// What is chosen is copied, and only that has to be quiet.
func TestSelectedCheckpoint(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	startMovers(t, ns, "0s")
	one, two := aQueue(1, 0x71, "a", "b"), aQueue(40, 0x72, "c")
	fill(t, ns, one, aQueue(3, 0, "private"), two)
	if err := trySaveOnly(t, ns, dir, one.Key, two.Key, 0x99); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]queue{one, two}, readImage(t, dir)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	if files := manifestOf(t, dir).Files; len(files) != 2 {
		t.Errorf("files %+v", files)
	}
	nstest.Try(t, func() error {
		err := trySaveOnly(t, ns, dir, one.Key, 0x20, 0x21, 0x22)
		if err == nil {
			return errors.New("the kernel let no neighbour run for a second: the copy was accepted")
		}
		wantFailure(t, err, "queue 2", "5 times: stop its users")
		return nil
	})
	waitMoved(t, ns)
}

// Somebody else's queue at a chosen key is not chosen.
func TestSelectedOwner(t *testing.T) {
	nstest.Require(t, "root")
	theirs := steady
	theirs.UID = 1000
	ns, dir := nstest.Fresh(t), t.TempDir()
	fill(t, ns, theirs, changes)
	if err := trySaveOnly(t, ns, dir, theirs.Key, changes.Key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]queue{changes}, readImage(t, dir)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
}

// Where nothing is chosen there is no image of queues, nor one of an older
// checkpoint.
func TestSelectedNothing(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	fill(t, ns, steady)
	for _, keys := range [][]int32{{steady.Key}, {0x99}} {
		if err := trySaveOnly(t, ns, dir, keys...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(imagePath(dir, images.MsgKind)); !os.IsNotExist(err) {
		t.Errorf("the image of queues: %v", err)
	}
	if readVars(t, dir).MsgMax == 0 {
		t.Error("no msgmax")
	}
}

// A queue of the image that is not chosen is left out, and told of; one that was
// restored before is not removed because it is not chosen any more.
func TestSelectedRestore(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	dir := s.checkpoint()
	report := s.restore(dir, actions{plugin.ActionMake: 2, plugin.ActionLeave: 1}, selected(steady.Key, changes.Key))
	wantQueues(t, s.target, steady, changes)
	want := plugin.Step{Object: "queue 3 (key 0x33)", Action: plugin.ActionLeave, Reason: plugin.NotSelected}
	if !slices.Contains(report.Steps, want) || report.Image[0].Objects != 2 {
		t.Errorf("report %+v", report)
	}
	s.restore(dir, actions{plugin.ActionLeave: 2, plugin.ActionMake: 1}, selected(steady.Key, changes.Key, goes.Key))
	wantQueues(t, s.target, steady, changes, goes)
	within(t, s.source, func(k kernel.Kernel) error { return k.Remove(changes.ID) })
	s.restore(s.checkpoint(), actions{plugin.ActionLeave: 2}, selected(steady.Key))
	wantQueues(t, s.target, steady, changes, goes)
}

// One that is not chosen still stands in the way.
func TestSelectedConflict(t *testing.T) {
	s := newStory(t, steady)
	dir := s.checkpoint()
	other := aQueue(steady.ID, 0x99, "other")
	fill(t, s.target, other)
	_, err := s.try(dir, selected(steady.Key))
	wantFailure(t, err, "queue 1 (key 0x11): its id or key is taken by queue 1 (key 0x99)")
	wantQueues(t, s.target, other)
}

// What is chosen is made again in place if it is missing, once. What is there
// stays as it is.
func TestSelectedInPlace(t *testing.T) {
	s := newInPlace(t, steady, changes, goes)
	wanted := selected(steady.Key, changes.Key)
	for range 2 {
		within(t, s.target, removeIfThere(goes.ID))
		dir := s.checkpoint()
		do(t, s, removeIfThere(steady.ID), takeOne(changes.ID))
		report := s.restore(dir, actions{plugin.ActionMake: 1, plugin.ActionAdopt: 1}, wanted)
		used := changes
		used.Messages = nil
		wantQueues(t, s.target, steady, used)
		if len(report.Warnings) != 1 {
			t.Errorf("warnings %q", report.Warnings)
		}
		do(t, s, removeIfThere(steady.ID))
		s.restore(dir, actions{plugin.ActionLeave: 2}, wanted)
		wantQueues(t, s.target, used)
		do(t, s, removeIfThere(changes.ID), func(k kernel.Kernel) error { return makeQueue(k, steady) },
			func(k kernel.Kernel) error { return makeQueue(k, changes) })
	}
}

// An earlier checkpoint brings nothing back after a later one.
func TestSelectedInPlaceOlder(t *testing.T) {
	s := newInPlace(t, steady)
	earlier, later := s.checkpoint(), s.checkpoint()
	do(t, s, removeIfThere(steady.ID))
	s.restore(later, actions{plugin.ActionMake: 1}, selected(steady.Key))
	do(t, s, removeIfThere(steady.ID))
	s.restore(earlier, actions{plugin.ActionLeave: 1}, selected(steady.Key))
	wantQueues(t, s.target)
}
