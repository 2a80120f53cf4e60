package plugin_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

func withMode(q queue, mode uint32) queue {
	q.Mode = mode
	return q
}

// conflictCase is a queue of an image that meets others in the target. Where an
// outcome is "" the restore is refused with says.
type conflictCase struct {
	name                 string
	image                queue
	live                 []queue
	says                 string
	fail, adopt, replace plugin.Action
}

var (
	wantedQueue  = aQueue(7, 0x77, "one", "two")
	privateQueue = aQueue(7, 0, "one", "two")
)

// slots is how many queues a namespace holds at most without ipcmni_extend: ids
// that differ by it cannot exist together.
const slots = 1 << 15

var conflictCases = []conflictCase{
	{"equal", wantedQueue, []queue{wantedQueue}, "", plugin.ActionKeep, plugin.ActionKeep, plugin.ActionKeep},
	{"private and equal", privateQueue, []queue{privateQueue}, "", plugin.ActionKeep, plugin.ActionKeep, plugin.ActionKeep},
	{"nothing there", wantedQueue, nil, "", plugin.ActionMake, plugin.ActionMake, plugin.ActionMake},
	{"other messages", wantedQueue, []queue{aQueue(7, 0x77, "one", "TWO")}, "exists and differs in messages", "", plugin.ActionAdopt, plugin.ActionReplace},
	{"fewer messages", wantedQueue, []queue{aQueue(7, 0x77, "one")}, "exists and differs in number of messages", "", plugin.ActionAdopt, plugin.ActionReplace},
	{"other mode", wantedQueue, []queue{withMode(wantedQueue, 0o640)}, "exists and differs in mode", "", "", plugin.ActionReplace},
	{"private and different", privateQueue, []queue{aQueue(7, 0, "other")}, "exists and differs in number of messages", "", "", plugin.ActionReplace},
	{"slot taken", wantedQueue, []queue{aQueue(7+slots, 0x99, "other")}, "its id or key is taken by queue 32775 (key 0x99)", "", "", plugin.ActionReplace},
	{"key taken", wantedQueue, []queue{aQueue(8, 0x77, "other")}, "its id or key is taken by queue 8 (key 0x77)", "", "", plugin.ActionReplace},
	{"both taken", wantedQueue, []queue{aQueue(7, 0x99), aQueue(8, 0x77)}, "its id or key is taken by queue 7 (key 0x99)", "", "", plugin.ActionReplace},
	{"other key at the id", wantedQueue, []queue{aQueue(7, 0x78, "one", "two")}, "its id or key is taken by queue 7 (key 0x78)", "", "", plugin.ActionReplace},

	// A program's own queue of a closed mode is not what a restore left.
	{"mode 0 with the same messages", wantedQueue, []queue{withMode(wantedQueue, 0)}, "exists and differs in mode", "", "", plugin.ActionReplace},
	{"mode 0 and empty", wantedQueue, []queue{withMode(aQueue(7, 0x77), 0)}, "exists and differs in mode", "", "", plugin.ActionReplace},
	{"mode 0111 with messages of its own", wantedQueue, []queue{withMode(aQueue(7, 0x77, "own"), 0o111)}, "exists and differs in mode and messages", "", "", plugin.ActionReplace},
	{"mode 0111 with more messages", wantedQueue, []queue{withMode(aQueue(7, 0x77, "one", "two", "three"), 0o111)}, "exists and differs in mode", "", "", plugin.ActionReplace},
	{"mode 0111 like the image", withMode(wantedQueue, 0o111), []queue{withMode(wantedQueue, 0o111)}, "", plugin.ActionKeep, plugin.ActionKeep, plugin.ActionKeep},
	{"mode 0111 unlike the image", withMode(wantedQueue, 0o111), []queue{withMode(aQueue(7, 0x77, "one"), 0o111)}, "exists and differs in number of messages", "", plugin.ActionAdopt, plugin.ActionReplace},

	// What a killed restore left.
	{"leftover, empty", wantedQueue, []queue{withMode(aQueue(7, 0x77), 0o111)}, "", plugin.ActionRemake, plugin.ActionRemake, plugin.ActionRemake},
	{"leftover, half full", wantedQueue, []queue{withMode(aQueue(7, 0x77, "one"), 0o111)}, "", plugin.ActionRemake, plugin.ActionRemake, plugin.ActionRemake},
	{"leftover, complete", wantedQueue, []queue{withMode(wantedQueue, 0o111)}, "", plugin.ActionRemake, plugin.ActionRemake, plugin.ActionRemake},
	{"leftover, private", privateQueue, []queue{withMode(aQueue(7, 0, "one"), 0o111)}, "", plugin.ActionRemake, plugin.ActionRemake, plugin.ActionRemake},
	{"leftover of mode 0111", withMode(wantedQueue, 0o111), []queue{withMode(aQueue(7, 0x77, "one"), 0o011)}, "", plugin.ActionRemake, plugin.ActionRemake, plugin.ActionRemake},
}

var policies = []plugin.Policy{plugin.Fail, plugin.Adopt, plugin.Replace}

func (c *conflictCase) outcome(policy plugin.Policy) plugin.Action {
	return [...]plugin.Action{plugin.Fail: c.fail, plugin.Adopt: c.adopt, plugin.Replace: c.replace}[policy]
}

// stranger is a queue that no image knows.
var stranger = aQueue(3, 0x33, "stranger")

func TestConflicts(t *testing.T) {
	nstest.Require(t, "userns")
	for _, c := range conflictCases {
		t.Run(c.name, func(t *testing.T) {
			other := aQueue(9, 0x9999, "beside")
			dir := saved(t, c.image, other)
			for _, policy := range policies {
				ns := nstest.Fresh(t)
				fill(t, ns, append([]queue{stranger}, c.live...)...)
				was := stateOf(t, ns)
				c.dryRun(t, ns, dir, policy)
				wantSame(t, ns, was)
				report, err := tryLoad(t, ns, dir, policy)
				outcome := c.outcome(policy)
				if outcome == "" {
					c.wantRefused(t, err, policy)
					wantSame(t, ns, was)
					continue
				}
				if err != nil {
					t.Fatalf("policy %d: %v", policy, err)
				}
				if diff := cmp.Diff(wantedActions(outcome), report.Actions); diff != "" {
					t.Errorf("policy %d: actions (-want +got):\n%s", policy, diff)
				}
				if warned := len(report.Warnings) == 1; warned != (outcome == plugin.ActionAdopt || outcome == plugin.ActionReplace) {
					t.Errorf("policy %d: warnings %q", policy, report.Warnings)
				}
				wantQueues(t, ns, c.after(outcome, other)...)
				rerun(t, ns, dir, outcome)
			}
		})
	}
}

func wantedActions(outcome plugin.Action) map[plugin.Action]int {
	actions := map[plugin.Action]int{plugin.ActionMake: 1} // the other queue of the image
	actions[outcome]++
	return actions
}

// after is what the namespace holds then, in the order of the indexes.
func (c *conflictCase) after(outcome plugin.Action, other queue) []queue {
	queues := []queue{stranger, c.image, other}
	if outcome == plugin.ActionAdopt {
		queues[1] = c.live[0]
	}
	return queues
}

func (c *conflictCase) dryRun(t *testing.T, ns *nsenter.Namespace, dir string, policy plugin.Policy) {
	t.Helper()
	report, err := plugin.Restore(t.Context(), plugin.RestoreOptions{
		Kinds: kinds, Namespace: ns, Dir: dir, Number: images.Auto, OnConflict: policy, Existing: plugin.ExistingAdopt, DryRun: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	outcome := c.outcome(policy)
	if outcome == "" {
		outcome = plugin.ActionConflict
	}
	if report.Steps[0].Action != outcome || !report.DryRun || report.LimitsSet || report.Frozen != nil {
		t.Errorf("policy %d: dry run says %+v, want %s first", policy, report, outcome)
	}
	if outcome == plugin.ActionConflict && report.Steps[0].Reason != c.says {
		t.Errorf("policy %d: dry run gives as a reason %q", policy, report.Steps[0].Reason)
	}
}

func (c *conflictCase) wantRefused(t *testing.T, err error, policy plugin.Policy) {
	t.Helper()
	wantFailure(t, err, c.image.name()+": "+c.says, "nothing was changed")
	var conflict *plugin.ConflictError
	remedy := plugin.RemedyPolicy
	if c.adopt != "" {
		remedy = plugin.RemedyExisting
	}
	if !errors.As(err, &conflict) || len(conflict.Steps) != 1 || conflict.Remedy != remedy {
		t.Errorf("policy %d: %+v, %v, want a ConflictError with one step, and the remedy %q", policy, conflict, err, remedy)
	}
}

func (q queue) name() string { return images.QueueName(uint32(q.ID), uint32(q.Key)) }

// rerun runs a restore again: all that is equal is left alone. An adopted queue
// is a conflict still.
func rerun(t *testing.T, ns *nsenter.Namespace, dir string, before plugin.Action) {
	t.Helper()
	was := stateOf(t, ns)
	report, err := tryLoad(t, ns, dir, plugin.Fail)
	if before == plugin.ActionAdopt {
		wantFailure(t, err, "exists and differs")
	} else if err != nil || report.Actions[plugin.ActionKeep] != 2 || len(report.Actions) != 1 {
		t.Errorf("rerun: %+v, %v", report, err)
	}
	wantSame(t, ns, was)
}

// A queue that somebody has received from is nobody's leftover.
func TestReceivedFromIsNoLeftover(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	fill(t, ns, withMode(aQueue(7, 0x77, "zero", "one"), 0o111))
	if err := ns.Run(func() error { receive(7, make([]byte, 64)); return nil }); err != nil {
		t.Fatal(err)
	}
	was := stateOf(t, ns)
	image := aQueue(7, 0x77, "one", "two")
	image.Messages[0].Type = 2 // as the live one has it
	_, err := tryLoad(t, ns, saved(t, image), plugin.Fail)
	wantFailure(t, err, "queue 7 (key 0x77): exists and differs in mode")
	wantSame(t, ns, was)
}

// All conflicts are counted, and none is decided before all are known.
func TestSeveralConflicts(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(5, 0x55, "x"), aQueue(7, 0x77, "y"))
	was := stateOf(t, ns)
	dir := saved(t, aQueue(4, 0x44), aQueue(5, 0x55), aQueue(7, 0x77))
	_, err := tryLoad(t, ns, dir, plugin.Fail)
	wantFailure(t, err, "queue 5 (key 0x55)", "queue 7 (key 0x77)")
	wantSame(t, ns, was)
	report := load(t, ns, dir, plugin.Replace)
	if !slices.ContainsFunc(report.Warnings, func(w string) bool {
		return w == "queue 5 (key 0x55) replaced: exists and differs in number of messages"
	}) {
		t.Errorf("warnings %q", report.Warnings)
	}
	wantQueues(t, ns, aQueue(4, 0x44), aQueue(5, 0x55), aQueue(7, 0x77))
}
