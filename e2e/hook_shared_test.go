package e2e_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Roles of two workers that talk to each other.
var (
	oneEnd   = []string{"produce:0x51:100", "consume:0x52:100"}
	otherEnd = []string{"consume:0x51:100", "produce:0x52:100"}
)

// churning makes and removes queues all the time.
const churning = "churn:0x700:1000"

// work lets workers that depend on each other go on for a while, and stops them.
func work(t testing.TB, crews ...*crew) {
	t.Helper()
	var before []report
	for _, c := range crews {
		before = append(before, c.ask(t, "go"))
	}
	for i, c := range crews {
		c.advance(t, before[i], 20)
	}
	for _, c := range crews {
		c.faultless(t, c.ask(t, "stop"))
	}
}

// TestHookPod restores both containers of a pod into a fresh namespace, in
// either order.
func TestHookPod(t *testing.T) {
	for name, order := range map[string][]int{"in order": {0, 1}, "in reverse": {1, 0}} {
		t.Run("runc/"+name, func(t *testing.T) { runcPodCarried(t, order, nil) })
		t.Run("podman/"+name, func(t *testing.T) { podmanPodCarried(t, order) })
	}
}

func runcPodCarried(t *testing.T, order []int, through []string) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), oneEnd, otherEnd)
	p.goThrough(through)
	work(t, p.crews...)
	everything.make(t, p.ns)
	saved, bounds := queues(t, p.ns), limits(t, p.ns)
	for _, s := range p.members {
		mustSave(t, s)
	}
	p.moveTo(t, nstest.Fresh(t))
	for _, i := range order {
		mustLoad(t, p.members[i])
		compareQueues(t, saved, queues(t, p.ns))
	}
	if got := limits(t, p.ns); got != bounds {
		t.Errorf("msgmax, msgmnb, msgmni: %v, before %v", got, bounds)
	}
	work(t, p.crews...)
	accounted(t, p.ns, p.crews)
}

func podmanPodCarried(t *testing.T, order []int) {
	nstest.Require(t, byPodman.needs...)
	leavesNothing(t)
	p := newPodmanPod(t, hookConf(t), oneEnd, otherEnd)
	work(t, p.crews...)
	everything.make(t, p.ns(t))
	saved := queues(t, p.ns(t))
	archives := []string{p.export(t, 0), p.export(t, 1)}
	p.replace(t)
	for _, i := range order {
		p.mustBring(t, archives[i])
		compareQueues(t, saved, queues(t, p.ns(t)))
	}
	work(t, p.crews...)
	accounted(t, p.ns(t), p.crews)
}

func (p *podmanPod) mustBring(t testing.TB, archive string) {
	t.Helper()
	if err := p.bring(archive); err != nil {
		t.Fatalf("restore: %v\n%s", err, hookSaid(p.dir))
	}
}

// Without the hook the second container of a pod cannot be restored.
func TestNoHookPod(t *testing.T) {
	t.Run("runc", func(t *testing.T) {
		nstest.Require(t, byRunc.needs...)
		p := newRuncPod(t, scriptConf(t), oneEnd, otherEnd)
		for _, s := range p.members {
			mustSave(t, s)
		}
		p.moveTo(t, nstest.Fresh(t))
		mustLoad(t, p.members[0])
		failsBecauseOfTheFirst(t, p.members[1].load(t), p.members[1].logs())
	})
	t.Run("podman", func(t *testing.T) {
		nstest.Require(t, byPodman.needs...)
		p := newPodmanPod(t, scriptConf(t), oneEnd, otherEnd)
		archives := []string{p.export(t, 0), p.export(t, 1)}
		p.replace(t)
		p.mustBring(t, archives[0])
		failsBecauseOfTheFirst(t, p.bring(archives[1]), hookSaid(p.dir))
	})
}

func failsBecauseOfTheFirst(t *testing.T, err error, log string) {
	t.Helper()
	if err == nil {
		t.Fatal("CRIU restores the second container of a pod now")
	}
	if !strings.Contains(log, "Failed to create msg set: File exists") {
		t.Errorf("CRIU fails for another reason: %v\n%s", err, log)
	}
}

// TestHookInPlace stops one container of a pod and brings it back, while the
// other goes on: what that consumed meanwhile must not come back.
func TestHookInPlace(t *testing.T) {
	t.Run("runc", func(t *testing.T) { runcInPlace(t, nil) })
	t.Run("podman", func(t *testing.T) {
		nstest.Require(t, byPodman.needs...)
		leavesNothing(t)
		p := newPodmanPod(t, hookConf(t), oneEnd, append([]string{churning}, otherEnd...))
		work(t, p.crews...)
		for range rounds(t, 2) {
			stopOneAndBringItBack(t, p.crews, p.members[0])
		}
		accounted(t, p.ns(t), p.crews)
	})
}

func runcInPlace(t *testing.T, through []string) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), oneEnd, append([]string{churning}, otherEnd...))
	p.goThrough(through)
	work(t, p.crews...)
	everything.make(t, p.ns)
	for range rounds(t, 3) {
		stopOneAndBringItBack(t, p.crews, p.members[0])
	}
	accounted(t, p.ns, p.crews)
}

func stopOneAndBringItBack(t *testing.T, crews []*crew, first subject) {
	t.Helper()
	one, other := crews[0], crews[1]
	before := one.ask(t, "go")
	other.ask(t, "go")
	one.advance(t, before, 20)
	mustSave(t, first)
	// It consumes what is left for it, and goes on with queues of its own.
	churned := other.ask(t, "report").Done[churning]
	waitFor(t, "the other one to go on", func() bool { return other.ask(t, "report").Done[churning] > churned+20 })
	mustLoad(t, first)
	now := one.ask(t, "report")
	one.advance(t, now, 20)
	one.faultless(t, one.ask(t, "stop"))
	other.faultless(t, other.ask(t, "stop"))
	if t.Failed() {
		t.Fatal(first.logs())
	}
}

// accounted wants every message that was ever sent to be received, or else to
// be in its queue, in order. The workers must hold still.
func accounted(t testing.TB, ns *nsenter.Namespace, crews []*crew) {
	t.Helper()
	done := map[string]int{}
	for _, c := range crews {
		said := c.ask(t, "report")
		c.faultless(t, said)
		for role, n := range said.Done {
			done[strings.Join(strings.Split(role, ":")[:2], " ")] = n
		}
	}
	for _, q := range queues(t, ns) {
		if q.Key != 0x51 && q.Key != 0x52 {
			continue
		}
		key := map[int]string{0x51: "0x51", 0x52: "0x52"}[q.Key]
		var due []message
		for n := done["consume "+key] + 1; n <= done["produce "+key]; n++ {
			due = append(due, numbered(n))
		}
		if diff := cmp.Diff(due, q.Messages); diff != "" {
			t.Errorf("queue %s: %d produced, %d consumed; in the queue (-due +found):\n%s", key, done["produce "+key], done["consume "+key], diff)
		}
	}
}
