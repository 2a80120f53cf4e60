package e2e_test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// A queue made between the checkpoints of two containers is there when both
// are back.
func TestHookQueueMadeInBetween(t *testing.T) {
	for name, order := range map[string][]int{"older first": {0, 1}, "newer first": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			p := newRuncPod(t, hookConf(t), oneEnd, otherEnd)
			work(t, p.crews...)
			mustSave(t, p.members[0])
			makeQueue(t, p.ns, 0x9999, samples...)
			saved := queues(t, p.ns)
			mustSave(t, p.members[1])
			p.moveTo(t, nstest.Fresh(t))
			for _, i := range order {
				mustLoad(t, p.members[i])
			}
			compareQueues(t, saved, queues(t, p.ns))
			work(t, p.crews...)
			accounted(t, p.ns, p.crews)
		})
	}
}

// Each container is stopped from its checkpoint on, and the other one worked
// meanwhile. With the older one back first and at work, the newer checkpoint is
// of another past; the other way round everything comes out even.
func TestHookRestoreOrder(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), oneEnd, otherEnd)
	older, newer := p.members[0], p.members[1]
	before := p.crews[0].ask(t, "go")
	p.crews[1].ask(t, "go")
	p.crews[0].advance(t, before, 20)
	mustSave(t, older)
	p.crews[1].advance(t, before, 0)
	mustSave(t, newer)

	p.moveTo(t, nstest.Fresh(t))
	mustLoad(t, older)
	inNamespace(t, p.ns, func() error { // the queue that it fills may have been full at its checkpoint
		id, err := syscallMsg(unix.SYS_MSGGET, 0x51, 0, 0, 0, 0)
		for n := 0; n < 100 && err == nil; n++ {
			err = receive(id)
		}
		if errors.Is(err, unix.ENOMSG) {
			return nil
		}
		return err
	})
	waitFor(t, "the older one to use a queue", func() bool { return lastUsedBy(t, p.ns, older.pid(t)) })
	err := newer.load(t)
	if err == nil {
		t.Fatal("the newer one is restored into what the older one has changed")
	}
	if said := newer.logs(); !strings.Contains(said, older.dir) {
		t.Errorf("the refusal does not name the other checkpoint, %s:\n%s", older.dir, said)
	}
	older.discard(t)
	newer.discard(t)

	p.moveTo(t, nstest.Fresh(t))
	mustLoad(t, newer)
	mustLoad(t, older)
	p.crews[0].advance(t, p.crews[0].ask(t, "report"), 20)
	for _, c := range p.crews {
		c.ask(t, "stop")
	}
	accounted(t, p.ns, p.crews)
}

// discard takes away a container whose checkpoint is kept.
func (s *runcSubject) discard(t testing.TB) {
	t.Helper()
	exec.Command("runc", "--root", s.state, "delete", "--force", s.id).Run() // an error where nothing is left
}

// A container that went on after its checkpoint, and is then set back in the
// same namespace, would see its own work undone or doubled.
func TestHookLeftRunningInPlace(t *testing.T) {
	for name, roles := range map[string][][]string{"alone": {talking}, "with a neighbour": {talking, nil}} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			leftRunningInPlace(t, nil, roles...)
		})
	}
}

func leftRunningInPlace(t *testing.T, through []string, roles ...[]string) {
	t.Helper()
	p := newRuncPod(t, hookConf(t), roles...)
	s, c := p.members[0], p.crews[0]
	s.through = through
	c.works(t)
	mustSave(t, s, "--leave-running")
	// Long enough that nobody can take it for one that CRIU has killed.
	c.advance(t, c.ask(t, "go"), 500)
	c.ask(t, "stop")
	s.discard(t)
	now := queues(t, p.ns)
	if s.loadThrough(through) == nil {
		t.Errorf("the restore succeeds:\n%s", s.logs())
	}
	compareQueues(t, now, queues(t, p.ns))
	s.discard(t)
}

func TestHookLeftRunningIdle(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), talking)
	p.crews[0].works(t)
	saved := queues(t, p.ns)
	mustSave(t, p.members[0], "--leave-running")
	p.members[0].discard(t)
	mustLoad(t, p.members[0])
	compareQueues(t, saved, queues(t, p.ns))
	p.crews[0].works(t)
}

// A private queue of a new container in the new pod has by chance the id that
// an image holds.
func TestHookForeignPrivateQueue(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), talking)
	p.crews[0].works(t)
	id := makeQueue(t, p.ns, 0, message{1, "of the old pod"})
	mustSave(t, p.members[0])
	p.moveTo(t, nstest.Fresh(t))
	makeAt(t, p.ns, 0, id, message{1, "of a new container"})
	foreign := queues(t, p.ns)
	if p.members[0].load(t) == nil {
		t.Error("the restore succeeds")
	}
	if said := p.members[0].logs(); !strings.Contains(said, fmt.Sprint(id)) {
		t.Errorf("the refusal does not name queue %d:\n%s", id, said)
	}
	compareQueues(t, foreign, queues(t, p.ns))
	p.members[0].discard(t)
}

// The kernel gives a namespace the inode number of one that has just gone: what
// was restored there must not count.
func TestHookSameCheckpointAgainAndAgain(t *testing.T) {
	each(t, []way{byRunc}, func(t *testing.T, w way) { againAndAgain(t, nil) })
}

func againAndAgain(t *testing.T, through []string) {
	t.Helper()
	c := newCrew(t, talking...)
	s := startByRunc(t, c, hookConf(t))
	s.through = through
	c.works(t)
	var saved []queue
	briefly(t, s, func(ns *nsenter.Namespace) {
		everything.make(t, ns)
		saved = queues(t, ns)
	})
	mustSave(t, s)
	inodes := map[uint64]int{}
	for range rounds(t, 5) {
		s.mustLoadThrough(t, through)
		briefly(t, s, func(ns *nsenter.Namespace) {
			compareQueues(t, saved, queues(t, ns))
			inodes[identityOf(t, ns).Inode]++
		})
		s.discard(t)
	}
	t.Logf("inode numbers of the namespaces, and how often each came: %v", inodes)
}

// A plain restore is a person's word, and not bound by what the hook has noted.
func TestRestoreAfterRemovalByHand(t *testing.T) {
	nstest.Require(t, "root")
	ns := nstest.Fresh(t)
	ordinary(t, ns, 0)
	saved := queues(t, ns)
	dir := imagesDir(t)
	run(t, "checkpoint", "--ns", fdPath(ns), "--images-dir", dir)
	inNamespace(t, ns, func() error { return removeQueue(keyed(saved, 0x1234).ID) })
	run(t, "restore", "--ns", fdPath(ns), "--images-dir", dir)
	compareQueues(t, byID(saved), byID(queues(t, ns)))
}
