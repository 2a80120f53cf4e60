package e2e_test

import (
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// Both containers of a pod are checkpointed at the same time, and at work: one
// waits for the other.
func TestHookBothAtOnce(t *testing.T) { bothAtOnce(t, nil, nil) }

func bothAtOnce(t *testing.T, through ...[]string) {
	t.Helper()
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), oneEnd, otherEnd)
	for i, s := range p.members {
		s.through = through[i]
	}
	for range rounds(t, 3) {
		for i, s := range p.members {
			s.dir = imagesDir(t)
			p.crews[i].ask(t, "go")
		}
		atOnce(t, func() error { return p.members[0].save(t, "--leave-running") }, func() error { return p.members[1].save(t, "--leave-running") })
		for i, c := range p.crews {
			c.advance(t, c.ask(t, "report"), 20)
			if t.Failed() {
				t.Fatal(p.members[i].logs())
			}
		}
		for _, c := range p.crews {
			c.ask(t, "stop")
		}
		accounted(t, p.ns, p.crews)
	}
}

func atOnce(t *testing.T, all ...func() error) {
	t.Helper()
	var group sync.WaitGroup
	for _, do := range all {
		group.Go(func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// One checkpoint is restored as two containers at the same time: they take turns
// with its files.
func TestHookOneDirectoryTwice(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	c := newCrew(t, talking...)
	first := startByRunc(t, c, hookConf(t))
	c.works(t)
	everything.make(t, nsOf(t, first))
	saved := queues(t, nsOf(t, first))
	mustSave(t, first)
	second := first.sibling(t)
	ourContainers = append(ourContainers, second.id)
	t.Cleanup(func() { exec.Command("runc", "--root", second.state, "delete", "--force", second.id).Run() })
	work := imagesDir(t)
	atOnce(t, func() error { return first.load(t) }, func() error {
		return failure(exec.Command("runc", "--root", second.state, "restore", "--detach", "--bundle", second.bundle,
			"--image-path", first.dir, "--work-path", work, second.id))
	})
	if t.Failed() {
		t.Fatal(first.logs(), hookSaid(work))
	}
	compareQueues(t, saved, queues(t, nsOf(t, first)))
	compareQueues(t, saved, queues(t, second.ns(t)))
}

// Nothing can be set aside in a directory that cannot be written: CRIU restores
// what it can, and the hook says what it cannot.
func TestHookReadOnlyDirectory(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	c := newCrew(t, talking...)
	s := startByRunc(t, c, hookConf(t))
	c.works(t)
	plain.make(t, nsOf(t, s))
	saved := queues(t, nsOf(t, s))
	mustSave(t, s)
	mountReadOnly(t, s.dir)
	work := imagesDir(t)
	err := failure(exec.Command("runc", "--root", s.state, "restore", "--detach", "--bundle", s.bundle,
		"--image-path", s.dir, "--work-path", work, s.id))
	if err != nil {
		t.Fatal(err, hookSaid(work))
	}
	if said := hookSaid(work); !strings.Contains(said, "warning") {
		t.Errorf("no warning:\n%s", said)
	}
	compareQueues(t, saved, queues(t, nsOf(t, s)))
	c.works(t)
}

func mountReadOnly(t *testing.T, dir string) {
	t.Helper()
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		if err := unix.Mount(dir, dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}
