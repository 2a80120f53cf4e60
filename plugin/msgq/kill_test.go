package msgq

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// restoreProgram restores a directory into the namespace it is in, with limits
// that the test has raised. It says when it begins.
var restoreProgram = nstest.Program("msgq.restore", func(args []string) {
	ns := must(nsenter.Current())
	owner := must(ns.Owner())
	space := linux.NewSpace(ns, owner)
	w := &world{Target: &kind.Target{Space: space, Owner: owner, Limits: limits.NewKeeper(ns, space)}}
	dir := must(images.OpenDir(args[0]))
	set := must(dir.Set(images.Auto))
	fmt.Println("begins")
	err := w.restore(set, kind.Fail)
	fmt.Println("ends", err)
})

// Killed at any moment, a restore leaves what a plain rerun completes.
func TestKilledAtAnyMoment(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	var boxes []box
	for i := range uint32(1500) {
		boxes = append(boxes, newBox(i*2, i*2/3*uint32(b2i(i%7 > 0)), many(int(i%3), 200)...))
	}
	boxes[700].Mode = modeInProgress
	set := imageOf(t, unique(boxes)...)
	boxes = unique(boxes)
	longest := 15 * time.Millisecond
	nstest.Try(t, func() error {
		partly := 0
		for range rounds {
			ns := nstest.Fresh(t)
			w := newWorld(t, linux.NewSpace(ns, nil), ns, must(ns.Owner()), nil)
			p := nstest.Start(t, ns, restoreProgram, set.Dir.Path())
			if line, err := p.Stdout.ReadString('\n'); line != "begins\n" {
				t.Fatalf("%q, %v", line, err)
			}
			time.Sleep(rand.N(longest)) // not a wait for a state
			p.Kill()
			if left := len(w.stat()); left > 0 && left < len(boxes) {
				partly++
			}
			if err := w.restore(set, kind.Fail); err != nil {
				t.Fatalf("run again: %v", err)
			}
			w.want("run again", boxes...)
			ns.Close()
			if t.Failed() {
				return nil
			}
		}
		t.Logf("in %d of %d rounds it was killed with some queues made", partly, rounds)
		if partly == 0 {
			longest *= 2
			return errors.New("no kill came when some queues were made")
		}
		return nil
	})
}

// unique makes queues private whose key is taken.
func unique(boxes []box) []box {
	seen := map[uint32]bool{}
	for i := range boxes {
		if seen[boxes[i].Key] {
			boxes[i].Key = 0
		}
		seen[boxes[i].Key] = true
	}
	return boxes
}

// The same in a user namespace of its own, where the ids of the image are not
// those that the host sees.
func TestRoundTripThroughAUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	child := func() *world {
		ns := must(nsenter.OpenPID(nstest.InUserNS(t)))
		t.Cleanup(func() { ns.Close() })
		owner := must(ns.Owner())
		return newWorld(t, linux.NewSpace(ns, owner), ns, owner, nil)
	}
	boxes := thorough()
	for i := range boxes {
		ids := uint32(i % 4 * 300)
		boxes[i].UID, boxes[i].GID, boxes[i].CUID, boxes[i].CGID = ids, ids+1, 999-ids, 0
	}
	from, to := child(), child()
	from.put(boxes...)
	roundTrip(t, from, to, boxes...)
	if q := to.stat()[0]; q.UID != 100000 || q.CUID != 100999 {
		t.Errorf("the host sees %+v, want ids from 100000 on", q)
	}
	host := linuxWorld(t)
	host.mustRestore(from.mustSave())
	host.want("the same ids elsewhere", boxes...)
}

// A queue of the host's own root in a child's namespace cannot be restored there.
func TestUnmappedOwnerOnLinux(t *testing.T) {
	nstest.Require(t, "root")
	ns := must(nsenter.OpenPID(nstest.InUserNS(t)))
	defer ns.Close()
	owner := must(ns.Owner())
	w := newWorld(t, linux.NewSpace(ns, owner), ns, owner, nil)
	w.look(func(k kernel.Kernel) { must(k.Create(5, 0o600, self())) })
	if _, err := w.save(); err == nil || err.Error() != "queue 0 (key 0x5): owner uid 0 has no mapping in the user namespace that owns the IPC namespace" {
		t.Errorf("%v, want the queue and the id", err)
	}
}
