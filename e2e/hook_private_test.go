package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Those that call a script.
var allWays = []way{byCRIU, byRunc, byPodman}

// Roles of a worker that talks to itself.
var talking = []string{"produce:0x51:100", "consume:0x51:100"}

// A shape is what is in a namespace beside the worker's own queues.
type shape struct {
	name string
	make func(t testing.TB, ns *nsenter.Namespace)
	fail string                    // why CRIU alone does not bring it back; "" where nobody says so, or it does
	spot func(queues []queue) bool // what CRIU alone loses
}

var plain = shape{name: "plain", make: func(t testing.TB, ns *nsenter.Namespace) { ordinary(t, ns, 0) }}

// shapes are those that CRIU dumps, and then gets wrong.
var shapes = []shape{
	{"64 KiB message", withLargeMessage, "Unsupported message size: 65536", nil},
	{"qbytes raised", func(t testing.TB, ns *nsenter.Namespace) {
		id := makeQueue(t, ns, 0x1234, samples...)
		inNamespace(t, ns, func() error { return setQbytes(id, 1<<20) })
		for range 10 {
			sendAll(t, ns, id, message{2, pattern(8192)})
		}
	}, "Failed to send IPC message", nil},
	{"fuller than its qbytes", func(t testing.TB, ns *nsenter.Namespace) {
		id := makeQueueAs(t, ns, 1000, 0x1234, samples...)
		inNamespace(t, ns, func() error { return setQbytes(id, 100) })
	}, "", func(found []queue) bool {
		q := keyed(found, 0x1234)
		return q != nil && q.Qbytes == defaultQbytes && q.CUID == 0
	}},
	{"msgmax lowered to its longest message", func(t testing.TB, ns *nsenter.Namespace) {
		makeQueue(t, ns, 0x1234, message{1, pattern(200)}, message{2, ""})
		inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 200) })
	}, "", nil},
}

// everything is all shapes at once.
var everything = shape{name: "everything", make: func(t testing.TB, ns *nsenter.Namespace) {
	ordinary(t, ns, 0)
	withLargeMessage(t, ns)
	full := makeQueueAs(t, ns, 1000, 0x7777, samples...)
	inNamespace(t, ns, func() error { return setQbytes(full, 100) })
}}

func withLargeMessage(t testing.TB, ns *nsenter.Namespace) {
	t.Helper()
	inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 1<<16) })
	id := makeQueue(t, ns, 0x6464)
	inNamespace(t, ns, func() error { return setQbytes(id, 1<<18) })
	sendAll(t, ns, id, message{1, pattern(1 << 16)}, message{2, pattern(1<<16 - 1)}, message{3, ""})
}

func keyed(found []queue, key int) *queue {
	for i := range found {
		if found[i].Key == key {
			return &found[i]
		}
	}
	return nil
}

// TestHookPlain and the others here carry one container with a namespace of its
// own, which is stopped at its checkpoint and goes on after its restore.
func TestHookPlain(t *testing.T) {
	each(t, append(allWays, byGoCRIU), func(t *testing.T, w way) { carried(t, w, plain) })
}

func TestHookWhereCRIUIsWrong(t *testing.T) {
	each(t, []way{byCRIU, byGoCRIU, byRunc}, func(t *testing.T, w way) {
		for _, s := range shapes {
			t.Run(s.name, func(t *testing.T) { carried(t, w, s) })
		}
	})
	each(t, []way{byPodman}, func(t *testing.T, w way) { carried(t, w, everything) })
}

// The rig's own: nothing under test between.
func TestRigWorker(t *testing.T) {
	each(t, allWays, func(t *testing.T, w way) {
		c := newCrew(t, talking...)
		carriedIn(t, c, w.start(t, c, scriptConf(t)), plain)
	})
}

func carried(t *testing.T, w way, s shape) {
	t.Helper()
	c := newCrew(t, talking...)
	carriedIn(t, c, w.start(t, c, hookConf(t)), s)
}

func carriedIn(t *testing.T, c *crew, sub subject, s shape) {
	t.Helper()
	c.works(t)
	ns := nsOf(t, sub)
	s.make(t, ns)
	saved, bounds := queues(t, ns), limits(t, ns)
	mustSave(t, sub)
	mustLoad(t, sub)
	ns = nsOf(t, sub)
	compareQueues(t, saved, queues(t, ns))
	if got := limits(t, ns); got != bounds {
		t.Errorf("msgmax, msgmnb, msgmni: %v, before %v", got, bounds)
	}
	c.works(t)
	if t.Failed() {
		t.Log(sub.logs())
	}
}

// Without the hook these come back wrong or not at all. Should one come back
// right, then CRIU has become better and the documentation is to be told.
func TestNoHookWhereCRIUIsWrong(t *testing.T) {
	each(t, []way{byRunc}, func(t *testing.T, w way) {
		for _, s := range shapes {
			if s.fail == "" && s.spot == nil {
				continue
			}
			t.Run(s.name, func(t *testing.T) { spoilt(t, w, s) })
		}
	})
	each(t, []way{byPodman}, func(t *testing.T, w way) { spoilt(t, w, shapes[0]) })
}

func spoilt(t *testing.T, w way, s shape) {
	t.Helper()
	c := newCrew(t, talking...)
	sub := w.start(t, c, scriptConf(t))
	c.works(t)
	s.make(t, nsOf(t, sub))
	mustSave(t, sub)
	err := sub.load(t)
	switch {
	case s.fail == "" && err != nil:
		t.Fatalf("restore: %v\n%s", err, sub.logs())
	case s.fail == "":
		if found := queues(t, nsOf(t, sub)); !s.spot(found) {
			t.Errorf("CRIU does this otherwise now: %+v", found)
		}
	case err == nil:
		t.Error("CRIU restores this now")
	case !strings.Contains(sub.logs(), s.fail):
		t.Errorf("CRIU fails for another reason than %q:\n%s", s.fail, sub.logs())
	}
}

// Owners and creators are users of the user namespace, and stay the same ones
// as seen from outside.
func TestHookUserNamespace(t *testing.T) {
	t.Run("runc", func(t *testing.T) { userNamespaceCarried(t, nil) })
}

func userNamespaceCarried(t *testing.T, through []string) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	c := newCrew(t, talking...)
	s := startByRunc(t, c, hookConf(t), inUserNS)
	s.through = through
	carriedIn(t, c, s, ownedInside)
}

var ownedInside = shape{name: "owned", make: func(t testing.TB, ns *nsenter.Namespace) {
	ordinary(t, ns, mappedRoot)
	makeQueueAs(t, ns, mappedRoot+5, 0x55, samples...)
}}

// An archive travels to a place where nothing is left of the container.
func TestHookPodmanArchive(t *testing.T) {
	nstest.Require(t, byPodman.needs...)
	leavesNothing(t)
	p := newPodman(t)
	c := newCrew(t, talking...)
	sub := p.worker(t, c, hookConf(t), "one")
	c.works(t)
	everything.make(t, nsOf(t, sub))
	saved := queues(t, nsOf(t, sub))
	for _, compression := range []string{"none", "zstd"} {
		archive := fmt.Sprintf("%s/%s.tar", p.dir, compression)
		mustSave(t, sub, "--export", archive, "--compress", compression)
		compareQueues(t, saved, shownQueues(t, archive))
		p.run(t, "rm", "one")
		p.run(t, "container", "restore", "--import", archive)
		compareQueues(t, saved, queues(t, nsOf(t, sub)))
		c.works(t)
		saved = queues(t, nsOf(t, sub))
	}
}
