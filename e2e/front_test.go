package e2e_test

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

const manyKey = 0x2000

// Shapes with 2,000 messages: one that CRIU restores by itself, and one for which
// it takes the hook.
var (
	manyPlain = shape{name: "without the hook", make: func(t testing.TB, ns *nsenter.Namespace) {
		ordinary(t, ns, 0)
		makeQueue(t, ns, manyKey, twoThousand()...)
	}}
	manyMore = shape{name: "with the hook", make: func(t testing.TB, ns *nsenter.Namespace) {
		everything.make(t, ns)
		makeQueue(t, ns, manyKey, twoThousand()...)
	}}
)

// TestFront checkpoints with CRIU beside the namespace. What comes of it is an
// ordinary checkpoint: CRIU alone restores it, and the hook does. Where the hook is
// in CRIU's configuration as well, CRIU calls it twice for the dump.
func TestFront(t *testing.T) {
	for _, f := range allFronts {
		t.Run(f.name, func(t *testing.T) {
			each(t, allWays, func(t *testing.T, w way) {
				t.Run(manyPlain.name, func(t *testing.T) {
					leavesNothing(t)
					carriedThrough(t, f, w, scriptConf(t), manyPlain)
				})
				t.Run(manyMore.name, func(t *testing.T) {
					leavesNothing(t)
					carriedThrough(t, f, w, hookConf(t), manyMore)
				})
			})
		})
	}
}

func carriedThrough(t *testing.T, f front, w way, conf string, s shape) {
	t.Helper()
	c := newCrew(t, talking...)
	sub := w.start(t, c, conf)
	goThrough(sub, f.through(t))
	c.works(t)
	s.make(t, nsOf(t, sub))
	mustSave(t, sub, "--leave-running") // the second goes into the same directory
	wantBeside(t, sub)
	c.works(t)
	saved, bounds := queues(t, nsOf(t, sub)), limits(t, nsOf(t, sub))
	mustSave(t, sub)
	wantBeside(t, sub)
	mustLoad(t, sub)
	ns := nsOf(t, sub)
	compareQueues(t, saved, queues(t, ns))
	if got := limits(t, ns); got != bounds {
		t.Errorf("msgmax, msgmnb, msgmni: %v, before %v", got, bounds)
	}
	c.works(t)
}
