package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// killedProgram STATE DIR MOMENT restores with Adopt into the namespace it is in,
// and is killed at that moment.
var killedProgram = nstest.Program("plugin.killed", func(args []string) {
	ns, err := nsenter.Current()
	mustBe(err, nil)
	die := func(kernel.Kernel) error { return unix.Kill(unix.Getpid(), unix.SIGKILL) }
	m := &meddler{}
	kinds := []plugin.Kind{msgq.Kind{}, m, ipcvar.Kind{}}
	switch args[2] {
	case "begun":
		m.beginning = die
	case "made":
		m.making = die
	case "unsealed":
		m.sealing, kinds = die, []plugin.Kind{m, msgq.Kind{}, ipcvar.Kind{}}
	case "sealed":
		m.sealing = die
	}
	opt := plugin.RestoreOptions{
		Kinds: kinds, Namespace: ns, Dir: args[1], Number: images.Auto, OnConflict: plugin.Adopt, InPlace: plugin.InPlaceRollback,
	}
	fmt.Println("begins")
	_, err = plugin.Restore(context.Background(), opt.WithState(args[0], nil))
	mustBe(err, nil)
})

var moments = []string{"begun", "made", "unsealed", "sealed"}

// kill lets a restore be killed at a moment.
func (s *story) kill(dir, moment string) {
	s.t.Helper()
	wantKilled(s.t, nstest.Start(s.t, s.target, killedProgram, s.state, dir, moment))
}

// wantKilled wants a program to kill itself.
func wantKilled(t *testing.T, p *nstest.Process) {
	t.Helper()
	if err := p.Wait(); fmt.Sprint(err) != "signal: killed" {
		t.Fatalf("it ends with %v, want that it is killed", err)
	}
}

// The first restore of a source is killed: the next completes it, limits
// included.
func TestInterruptedFirst(t *testing.T) {
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			s := newStory(t, steady, changes, goes)
			setLimits(t, s.source, sysctls{9000, 20000, 100})
			dir := s.checkpoint()
			s.kill(dir, moment)
			if _, err := s.try(dir); err != nil {
				t.Fatal(err)
			}
			wantQueues(t, s.target, steady, changes, goes)
			wantLimits(t, s.target, sysctls{9000, 20000, 100})
			do(t, s, removeIfThere(steady.ID))
			s.restore(dir, actions{plugin.ActionLeave: 3})
		})
	}
}

// When the first object is open all were made, so what is missing or different
// then was used: it does not come back.
func TestInterruptedAndUsed(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	setLimits(t, s.source, sysctls{9000, 20000, 100})
	dir := s.checkpoint()
	s.kill(dir, "sealed")
	do(t, s, takeOne(steady.ID), removeIfThere(changes.ID))
	was := stateOf(t, s.target)
	report := s.restore(dir, actions{plugin.ActionLeave: 3})
	was.Limits = sysctls{9000, 20000, 100}
	wantSame(t, s.target, was)
	if !report.LimitsSet {
		t.Error("the limits were not completed")
	}
}

// The restore of a later checkpoint is killed: it can be completed, and what it
// removed is not lost.
func TestInterruptedLater(t *testing.T) {
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			s := newStory(t, steady, changes, goes)
			earlier, later := s.twoCheckpoints()
			s.restore(earlier, actions{plugin.ActionMake: 3})
			do(t, s, takeOne(steady.ID))
			left := aQueue(steady.ID, steady.Key, "b")
			left.Messages[0].Type = 2
			s.kill(later, moment)
			if _, err := s.try(later); err != nil {
				t.Fatal(err)
			}
			wantQueues(t, s.target, left, changed, comes)
			was := stateOf(t, s.target)
			s.restore(later, actions{plugin.ActionLeave: 3})
			s.restore(earlier, actions{plugin.ActionLeave: 3})
			wantSame(t, s.target, was)
		})
	}
}

// Instead of the one that was killed the earlier one is restored again.
func TestInterruptedThenEarlier(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	earlier, later := s.twoCheckpoints()
	s.restore(earlier, actions{plugin.ActionMake: 3})
	s.kill(later, "made")
	if _, err := s.try(earlier); err != nil {
		t.Fatal(err)
	}
	wantQueues(t, s.target, steady, changes, goes)
	s.restore(later, actions{plugin.ActionLeave: 1, plugin.ActionReplace: 1, plugin.ActionMake: 1, plugin.ActionRemove: 1})
	wantQueues(t, s.target, steady, changed, comes)
}

// Instead of the one that was killed a still later one is restored.
func TestInterruptedThenStillLater(t *testing.T) {
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			s := newStory(t, steady, changes, goes)
			earlier, later := s.twoCheckpoints()
			within(t, s.source, sendOne(changes.ID, "even more"))
			within(t, s.source, removeIfThere(comes.ID))
			last := s.checkpoint()
			s.restore(earlier, actions{plugin.ActionMake: 3})
			s.kill(later, moment)
			if _, err := s.try(last); err != nil {
				t.Fatal(err)
			}
			wantSameQueues(t, s)
			was := stateOf(t, s.target)
			s.restore(last, actions{plugin.ActionLeave: 2})
			wantSame(t, s.target, was)
		})
	}
}

// A rollback in place that is killed is completed by the next.
func TestInterruptedRollback(t *testing.T) {
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			s := newInPlace(t, steady, changes)
			dir := s.checkpoint()
			do(t, s, takeOne(steady.ID), removeIfThere(changes.ID))
			s.goesOn(dir, true)
			s.kill(dir, moment)
			if _, err := s.try(dir, inPlace(plugin.InPlaceRollback)); err != nil {
				t.Fatal(err)
			}
			wantQueues(t, s.target, steady, changes)
		})
	}
}

// A restore that fails takes back what it noted, but not what it removed.
func TestFailedIsTakenBack(t *testing.T) {
	s := newStory(t, steady, changes, goes)
	earlier, later := s.twoCheckpoints()
	fails := func(o *plugin.RestoreOptions) {
		o.Kinds = (&meddler{making: func(kernel.Kernel) error { return unix.EIO }}).kinds()
	}
	_, err := s.try(earlier, fails)
	wantFailure(t, err, "restore "+earlier+" into ", unix.EIO.Error())
	wantQueues(t, s.target)
	s.restore(earlier, actions{plugin.ActionMake: 3})
	_, err = s.try(later, fails)
	wantFailure(t, err, "restore "+later+" into ", unix.EIO.Error())
	if _, err := s.try(later); err != nil {
		t.Fatal(err)
	}
	wantQueues(t, s.target, steady, changed, comes)
}

// Where nothing was removed, a restore that failed leaves no trace in the record.
func TestFailedLeavesNoTrace(t *testing.T) {
	s := newStory(t, steady)
	earlier := s.checkpoint()
	fill(t, s.source, comes)
	later := s.checkpoint()
	s.restore(earlier, actions{plugin.ActionMake: 1})
	was, err := os.ReadFile(s.recordFiles()[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.try(later, func(o *plugin.RestoreOptions) {
		o.Kinds = (&meddler{making: func(kernel.Kernel) error { return unix.EIO }}).kinds()
	})
	wantFailure(t, err, "input/output error")
	is, err := os.ReadFile(s.recordFiles()[0])
	if err != nil || string(is) != string(was) {
		t.Errorf("%v: the record was\n%s\nand is\n%s", err, was, is)
	}
}

// Killed at any moment, the one or the other is there after the next run.
func TestKilledAtAnyMoment(t *testing.T) {
	var first, second []queue
	for i := range int32(300) {
		q := aQueue(i, 0x1000+i, "a")
		first = append(first, q)
		if i%3 == 0 {
			q.Messages = append(q.Messages, message{9, "more"})
		}
		if i%3 != 1 {
			second = append(second, q)
		}
	}
	s := newStory(t, first...)
	earlier := s.checkpoint()
	within(t, s.source, func(k kernel.Kernel) error {
		for i := range int32(300) {
			if i%3 == 0 {
				mustBe(sendOne(i, "more")(k), nil)
			} else if i%3 == 1 {
				mustBe(k.Remove(i), nil)
			}
		}
		return nil
	})
	later := s.checkpoint()
	longest := 20 * time.Millisecond
	nstest.Try(t, func() error {
		partly := map[string]int{}
		for range 12 {
			s.target = nstest.Fresh(t)
			for _, dir := range []string{earlier, later} {
				if was := stateStats(t, s.target); s.killWithin(dir, longest) && !slices.Equal(was, stateStats(t, s.target)) {
					partly[dir]++
				}
				if _, err := s.try(dir); err != nil {
					t.Fatal(err)
				}
			}
			wantQueues(t, s.target, second...)
		}
		t.Logf("of 12 each, %d and %d were killed with some of it done", partly[earlier], partly[later])
		if len(partly) < 2 {
			longest *= 2
			return errors.New("no kill came in the middle of the one or the other restore")
		}
		return nil
	})
}

// killWithin kills a restore at a moment after its beginning, and reports whether it
// came before its end.
func (s *story) killWithin(dir string, longest time.Duration) bool {
	s.t.Helper()
	p := nstest.Start(s.t, s.target, killedProgram, s.state, dir, "never")
	if line, err := p.Stdout.ReadString('\n'); line != "begins\n" {
		s.t.Fatalf("it says %q, %v", line, err)
	}
	time.Sleep(rand.N(longest)) // not a wait for a state
	p.Kill()
	switch err := p.Wait(); fmt.Sprint(err) {
	case "<nil>":
		return false
	case "signal: killed":
		return true
	default:
		s.t.Fatalf("the restore ends with %v", err)
		return false
	}
}
