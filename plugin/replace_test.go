package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// Queues in the way of an image, of every kind of content; the image's.
var (
	inTheWay = []queue{
		aQueue(1, 0x11, "one", "", strings.Repeat("x", 9000)),
		withMode(aQueue(7, 0, "private", "two"), 0o640),
		aQueue(9+slots, 0x99), // takes the slot of 9
	}
	wantedInstead = []queue{aQueue(1, 0x11, "new"), aQueue(7, 0, "new"), aQueue(9, 0x90, "new"), aQueue(12, 0x12, "beside")}
)

// savedFiles returns what is left of what a restore has removed.
func savedFiles(t *testing.T, state string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(state, "replaced-*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(left, func(path string) bool { return strings.HasSuffix(path, ".lock") }) // a killed one's
}

func replacing(t *testing.T, ns *nsenter.Namespace, dir, state string, kinds []plugin.Kind) error {
	t.Helper()
	opt := plugin.RestoreOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: images.Auto, OnConflict: plugin.Replace}
	_, err := plugin.Restore(t.Context(), opt.WithState(state, nil))
	return err
}

// What was replaced is there again when a later step fails, whichever it is.
func TestReplacedIsPutBack(t *testing.T) {
	nstest.Require(t, "userns")
	dir := savedWith(t, sysctls{20000, 70000, 100}, wantedInstead...)
	failure := errors.New("this step fails")
	fails := func(kernel.Kernel) error { return failure }
	for name, m := range map[string]*meddler{
		"begin": {beginning: fails}, "make": {making: fails}, "check": {checking: fails},
		"disturbed": {making: func(k kernel.Kernel) error { return errors.Join(k.Remove(12), failure) }},
	} {
		t.Run(name, func(t *testing.T) {
			ns, state := nstest.Fresh(t), filepath.Join(t.TempDir(), "state")
			setLimits(t, ns, sysctls{10000, 40000, 32000})
			fill(t, ns, inTheWay...)
			err := replacing(t, ns, dir, state, m.kinds())
			wantFailure(t, err, failure.Error())
			wantQueues(t, ns, inTheWay...)
			wantLimits(t, ns, sysctls{10000, 40000, 32000})
			if left := savedFiles(t, state); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// When nothing fails, nothing that was saved is left.
func TestReplacedIsForgotten(t *testing.T) {
	nstest.Require(t, "userns")
	ns, state := nstest.Fresh(t), filepath.Join(t.TempDir(), "state")
	setLimits(t, ns, sysctls{10000, 40000, 32000})
	fill(t, ns, inTheWay...)
	if err := replacing(t, ns, saved(t, wantedInstead...), state, kinds); err != nil {
		t.Fatal(err)
	}
	wantQueues(t, ns, wantedInstead...)
	if left := savedFiles(t, state); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A queue that is used between the look at it and its removal is not removed, and
// what was removed before is there again.
func TestReplacedWhileUsed(t *testing.T) {
	nstest.Require(t, "userns")
	dir := saved(t, wantedInstead...)
	ns := nstest.Fresh(t)
	setLimits(t, ns, sysctls{10000, 40000, 32000})
	fill(t, ns, inTheWay...)
	m := &meddler{beginning: func(k kernel.Kernel) error { return k.Send(7, msgbuf(message{9, "late"})) }}
	err := replacing(t, ns, dir, filepath.Join(t.TempDir(), "state"), m.kinds())
	wantFailure(t, err, "remove queue 7 (private): it was used while it was to be replaced")
	used := inTheWay[1]
	used.Messages = append(slices.Clone(used.Messages), message{9, "late"})
	wantQueues(t, ns, inTheWay[0], used, inTheWay[2])
}

// A restore that is killed when it has removed something tells of it, and where it
// is; a second run completes it.
func TestReplacingIsKilled(t *testing.T) {
	s := newStory(t, wantedInstead...)
	dir := s.checkpoint()
	setLimits(t, s.target, sysctls{10000, 40000, 32000})
	fill(t, s.target, inTheWay...)
	wantKilled(t, nstest.Start(t, s.target, replaceKilledProgram, s.state, dir, "making"))
	left := savedFiles(t, s.state)
	if len(left) != 1 {
		t.Fatalf("saved: %q, want a directory", left)
	}
	// What it removed can be restored from there.
	other := nstest.Fresh(t)
	load(t, other, left[0], plugin.Fail)
	wantQueues(t, other, inTheWay...)

	report, err := plugin.Restore(t.Context(), plugin.RestoreOptions{
		Kinds: kinds, Namespace: other, Dir: saved(t), Number: images.Auto, DryRun: true,
	}.WithState(s.state, nil))
	if err != nil || !strings.Contains(strings.Join(report.Warnings, "\n"), "was killed while it put objects in the place of others") || !strings.Contains(strings.Join(report.Warnings, "\n"), left[0]) {
		t.Errorf("%+v, %v: want a warning that names %s", report, err, left[0])
	}
	// Where it was removed from it is not "still there", whatever is closed in its place.
	_, err = s.try(left[0])
	wantFailure(t, err, "its id or key is taken by ")
	// Whatever fails then says where it is.
	_, err = s.try(saved(t, aQueue(1, 0x11, "something else")), func(o *plugin.RestoreOptions) { o.Record = plugin.RecordOptional })
	wantFailure(t, err, "nothing was changed", "which are saved in "+left[0])
	if err := replacing(t, s.target, dir, s.state, kinds); err != nil {
		t.Fatal(err)
	}
	wantQueues(t, s.target, wantedInstead...)
	if left := savedFiles(t, s.state); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A second run that fails puts back what the killed one removed.
func TestReplacingIsKilledThenFails(t *testing.T) {
	s := newStory(t, wantedInstead...)
	dir := s.checkpoint()
	setLimits(t, s.target, sysctls{10000, 40000, 32000})
	fill(t, s.target, inTheWay...)
	wantKilled(t, nstest.Start(t, s.target, replaceKilledProgram, s.state, dir, "making"))
	m := &meddler{making: func(kernel.Kernel) error { return unix.EIO }}
	wantFailure(t, replacing(t, s.target, dir, s.state, m.kinds()), unix.EIO.Error())
	wantQueues(t, s.target, inTheWay...)
	if left := savedFiles(t, s.state); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A run whose last step fails can be run again by the same process, as its error says.
func TestReplacingAgain(t *testing.T) {
	s := newStory(t, wantedInstead...)
	dir := s.checkpoint()
	setLimits(t, s.target, sysctls{10000, 40000, 32000})
	fill(t, s.target, inTheWay...)
	m := &meddler{sealing: func(kernel.Kernel) error { return unix.EIO }}
	wantFailure(t, replacing(t, s.target, dir, s.state, m.kinds()), unix.EIO.Error(), "run the restore again")
	if err := replacing(t, s.target, dir, s.state, kinds); err != nil {
		t.Error(err)
	}
	wantQueues(t, s.target, wantedInstead...)
	if left := savedFiles(t, s.state); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// What was used after a run was killed that had saved it, and not removed it yet, is
// put back as it was then.
func TestReplacingIsKilledEarlyThenFails(t *testing.T) {
	s := newStory(t, wantedInstead...)
	dir := s.checkpoint()
	setLimits(t, s.target, sysctls{10000, 40000, 32000})
	fill(t, s.target, inTheWay...)
	nstest.Start(t, s.target, replaceKilledProgram, s.state, dir, "beginning").Wait()
	if left := savedFiles(t, s.state); len(left) != 1 {
		t.Fatalf("saved: %q, want a directory", left)
	}
	do(t, s, takeOne(1), sendOne(7, "late"))
	m := &meddler{making: func(kernel.Kernel) error { return unix.EIO }}
	wantFailure(t, replacing(t, s.target, dir, s.state, m.kinds()), unix.EIO.Error())
	first, second := inTheWay[0], inTheWay[1]
	first.Messages = first.Messages[1:]
	second.Messages = append(slices.Clone(second.Messages), message{9, "late"})
	wantQueues(t, s.target, first, second, inTheWay[2])
}

// replaceKilledProgram STATE DIR STEP is killed at a step: before it has removed
// anything, or when it has made all queues in the place of others.
var replaceKilledProgram = nstest.Program("plugin.replacekilled", func(args []string) {
	ns, err := nsenter.Current()
	mustBe(err, nil)
	kill := func(kernel.Kernel) error { return unix.Kill(unix.Getpid(), unix.SIGKILL) }
	m := &meddler{making: kill}
	if args[2] == "beginning" {
		m = &meddler{beginning: kill}
	}
	opt := plugin.RestoreOptions{Kinds: m.kinds(), Namespace: ns, Dir: args[1], Number: images.Auto, OnConflict: plugin.Replace}
	_, err = plugin.Restore(context.Background(), opt.WithState(args[0], nil))
	mustBe(err, nil)
})

// What cannot be saved is not replaced. Whether there is room a dry run looks too.
func TestReplacedCannotBeSaved(t *testing.T) {
	nstest.Require(t, "root")
	for _, c := range []struct {
		name, room string
		dry        bool
		says       string
	}{
		{"no room", "nr_blocks=8", true, "save what is to be replaced: it takes 76896 bytes, and "},
		{"no room", "nr_blocks=8", false, "save what is to be replaced: it takes 76896 bytes, and "},
		{"no files", "nr_inodes=7", false, "save what is to be replaced, nothing was changed: "},
	} {
		t.Run(fmt.Sprintf("%s, dry run %t", c.name, c.dry), func(t *testing.T) {
			small := t.TempDir()
			if err := unix.Mount("small", small, "tmpfs", 0, c.room); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
			ns, dir := nstest.Fresh(t), saved(t, aQueue(1, 0x11, "new"))
			setLimits(t, ns, sysctls{65536, 65536, 32000})
			fill(t, ns, aQueue(1, 0x11, strings.Repeat("x", 60000)))
			was := stateOf(t, ns)
			opt := plugin.RestoreOptions{Kinds: []plugin.Kind{msgq.Kind{}}, Namespace: ns, Dir: dir, Number: images.Auto, OnConflict: plugin.Replace, DryRun: c.dry}
			_, err := plugin.Restore(t.Context(), opt.WithState(filepath.Join(small, "state"), nil))
			wantFailure(t, err, c.says, unix.ENOSPC.Error())
			wantSame(t, ns, was)
		})
	}
}

// With a read-only /proc/sys an id cannot be chosen: that is found out before
// anything is removed, and by a dry run.
func TestReplaceWithoutNextID(t *testing.T) {
	nstest.Require(t, "root")
	dir := saved(t, aQueue(4, 0x44, "new"))
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(4, 0x44, "one", "two"))
	was := stateOf(t, ns)
	op := operation{PID: inhabit(t, ns).PID(), Restore: true, Dir: dir, NoWrite: true, OnConflict: plugin.Replace}
	wantFailure(t, op.result(t), "open sysctl kernel.msg_next_id for writing", "writable /proc/sys", unix.EROFS.Error())
	wantSame(t, ns, was)
}

// One whose creator cannot be given again is not replaced: it could not be made
// again.
func TestReplaceOfAnothersQueue(t *testing.T) {
	nstest.Require(t, "root")
	dir := saved(t, aQueue(4, 0x44, "new"))
	ns, theirs := nstest.Fresh(t), aQueue(4, 0x44, "one")
	theirs.UID, theirs.GID, theirs.CUID, theirs.CGID = 1001, 1002, 1003, 1004
	fill(t, ns, theirs)
	was := stateOf(t, ns)
	op := operation{PID: inhabit(t, ns).PID(), Restore: true, Dir: dir, OnConflict: plugin.Replace, Without: []uint{unix.CAP_SETUID}}
	wantFailure(t, op.result(t), "create queues as uid 1003, gid 1004", "CAP_SETUID")
	wantSame(t, ns, was)
}
