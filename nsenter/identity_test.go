package nsenter_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

type identify func(*nsenter.Namespace) (nsenter.Identity, error)

func identityOf(t *testing.T, n *nsenter.Namespace, how identify) nsenter.Identity {
	t.Helper()
	id, err := how(n)
	if err != nil {
		t.Fatal(err)
	}
	if id.BootID == "" || id.Inode != n.Inode() {
		t.Fatalf("identity of %s is %+v", n, id)
	}
	return id
}

// Each is closed before the next is made: the kernel hands the inode number
// out again.
func TestNamespacesInARowAreNeverSame(t *testing.T) {
	nstest.Require(t, "userns")
	for name, how := range map[string]identify{
		"with id":    (*nsenter.Namespace).Identity,
		"without id": (*nsenter.Namespace).IdentityWithoutID,
	} {
		var earlier []nsenter.Identity
		for range 20 {
			n := opened(t)(nsenter.New())
			p, _ := startReady(t, n, progWait)
			id := identityOf(t, n, how)
			p.Stop()
			n.Close()
			for _, old := range earlier {
				if id.Same(old) || old.Same(id) {
					t.Fatalf("%s: %+v passes for %+v", name, id, old)
				}
			}
			earlier = append(earlier, id)
		}
	}
}

func TestIdentityIsKept(t *testing.T) {
	ns := nstest.Fresh(t)
	first, _ := startReady(t, ns, progWait)
	again := opened(t)(nsenter.OpenPID(first.PID()))
	for name, how := range map[string]identify{
		"with id":    (*nsenter.Namespace).Identity,
		"without id": (*nsenter.Namespace).IdentityWithoutID,
	} {
		a, b := identityOf(t, ns, how), identityOf(t, again, how)
		if !a.Same(b) {
			t.Errorf("%s: %+v and %+v are not the same", name, a, b)
		}
	}
}

// Without ids a task must survive, and a task of the same pid is not enough.
func TestIdentityWithoutIDNeedsASurvivor(t *testing.T) {
	ns := nstest.Fresh(t)
	first, _ := startReady(t, ns, progWait)
	before := identityOf(t, ns, (*nsenter.Namespace).IdentityWithoutID)
	if before.ID != 0 || len(before.Tasks) != 1 || before.Tasks[0].PID != first.PID() || before.Tasks[0].Start == 0 {
		t.Fatalf("identity is %+v, want one task, %d", before, first.PID())
	}
	startReady(t, ns, progWait)
	between := identityOf(t, ns, (*nsenter.Namespace).IdentityWithoutID)
	first.Kill()
	after := identityOf(t, ns, (*nsenter.Namespace).IdentityWithoutID)
	if !before.Same(between) || !between.Same(after) || before.Same(after) {
		t.Errorf("%+v, %+v, %+v", before, between, after)
	}
	reused := before
	reused.Tasks = []nsenter.Task{{PID: before.Tasks[0].PID, Start: before.Tasks[0].Start + 1}}
	if before.Same(reused) {
		t.Error("another process of the same pid passes for a survivor")
	}
}

func TestSame(t *testing.T) {
	task := []nsenter.Task{{PID: 7, Start: 9}}
	full := nsenter.Identity{BootID: "b", ID: 5, Inode: 6, Tasks: task}
	for _, c := range []struct {
		name string
		a, b nsenter.Identity
		want bool
	}{
		{"equal", full, full, true},
		{"id decides over tasks", full, nsenter.Identity{BootID: "b", ID: 4, Inode: 6, Tasks: task}, false},
		{"id needs no tasks", full, nsenter.Identity{BootID: "b", ID: 5, Inode: 6}, true},
		{"other boot", full, nsenter.Identity{BootID: "c", ID: 5, Inode: 6, Tasks: task}, false},
		{"no boot id", nsenter.Identity{ID: 5, Inode: 6}, nsenter.Identity{ID: 5, Inode: 6}, false},
		{"one lacks the id", full, nsenter.Identity{BootID: "b", Inode: 6, Tasks: task}, true},
		{"one lacks the id, other inode", full, nsenter.Identity{BootID: "b", Inode: 8, Tasks: task}, false},
		{"no ids, no tasks", nsenter.Identity{BootID: "b", Inode: 6}, nsenter.Identity{BootID: "b", Inode: 6}, false},
	} {
		if c.a.Same(c.b) != c.want || c.b.Same(c.a) != c.want {
			t.Errorf("%s: want %t", c.name, c.want)
		}
	}
}

type find func(nsenter.Identity) (*nsenter.Namespace, error)

func TestOpenIdentityOfTask(t *testing.T) {
	ns := nstest.Fresh(t)
	startReady(t, ns, progWait)
	id := identityOf(t, ns, (*nsenter.Namespace).Identity)
	old := identityOf(t, ns, (*nsenter.Namespace).IdentityWithoutID)
	mustBeSame(t, opened(t)(nsenter.OpenIdentity(id)), ns)
	mustBeSame(t, opened(t)(nsenter.OpenIdentityByScan(id)), ns)
	mustBeSame(t, opened(t)(nsenter.OpenIdentityWithoutID(old)), ns)
}

// The one thread inside is found too.
func TestOpenIdentityOfThread(t *testing.T) {
	nstest.Require(t, "userns")
	p, tid := startReady(t, nil, progSplit)
	ns := opened(t)(nsenter.OpenPath(procPath(p.PID(), "task/"+tid+"/ns/ipc")))
	id := identityOf(t, ns, (*nsenter.Namespace).IdentityWithoutID)
	if len(id.Tasks) != 1 || id.Tasks[0].PID != p.PID() {
		t.Fatalf("tasks %v, want %d", id.Tasks, p.PID())
	}
	mustBeSame(t, opened(t)(nsenter.OpenIdentityWithoutID(id)), ns)
}

func TestOpenIdentityByHandle(t *testing.T) {
	nstest.Require(t, "nsid")
	ns := nstest.Fresh(t)
	mustBeSame(t, opened(t)(nsenter.OpenIdentity(identityOf(t, ns, (*nsenter.Namespace).Identity))), ns)
}

func TestOpenIdentityWithoutTasks(t *testing.T) {
	ns := nstest.Fresh(t)
	id := identityOf(t, ns, (*nsenter.Namespace).Identity)
	n, err := nsenter.OpenIdentityByScan(id)
	mustLeaveOpen(t, err, "no task that can be looked at is in it; whether it exists is unknown")
	if n != nil {
		t.Errorf("opened %s", n)
	}
}

// To who may not open it, the kernel says the same of a live one as of a dead.
func TestOpenIdentityProvesNothingWithoutPrivilege(t *testing.T) {
	id := identityOf(t, nstest.Fresh(t), (*nsenter.Namespace).Identity)
	err := withoutPrivilege(t, func() error {
		_, err := nsenter.OpenIdentity(id)
		return err
	})
	mustLeaveOpen(t, err, "no task that can be looked at is in it; whether it exists is unknown")
}

// mustLeaveOpen wants an error that says why, and not that the namespace is gone.
func mustLeaveOpen(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || errors.Is(err, nsenter.ErrGone) || !strings.HasSuffix(err.Error(), says) {
		t.Errorf("got %v, want %q, which leaves it open", err, says)
	}
}

func TestOpenIdentityOfTheDead(t *testing.T) {
	nstest.Require(t, "root", "nsid")
	ns := nstest.Fresh(t)
	id := identityOf(t, ns, (*nsenter.Namespace).Identity)
	ns.Close()
	poll(t, "the namespace is gone", func() bool {
		n, err := nsenter.OpenIdentity(id)
		if err == nil {
			n.Close()
		}
		// The number may have been taken by another meanwhile: a proof too, but
		// not the one that is asked for here.
		return errors.Is(err, nsenter.ErrGone) && !strings.Contains(err.Error(), "inode number")
	})
}

var ways = map[string]find{"handle": nsenter.OpenIdentity, "scan": nsenter.OpenIdentityByScan}

// The inode number is taken by another.
func TestOpenIdentityOfTheReplaced(t *testing.T) {
	nstest.Require(t, "nsid")
	ns := nstest.Fresh(t)
	startReady(t, ns, progWait)
	id := identityOf(t, ns, (*nsenter.Namespace).Identity)
	id.ID += 1 << 40
	for name, open := range ways {
		if _, err := open(id); !errors.Is(err, nsenter.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenIdentityProvesDeath(t *testing.T) {
	ns := nstest.Fresh(t)
	startReady(t, ns, progWait)
	id := identityOf(t, ns, (*nsenter.Namespace).Identity)
	boot := id
	boot.BootID = "another boot"
	for name, open := range ways {
		if _, err := open(boot); !errors.Is(err, nsenter.ErrGone) {
			t.Errorf("%s, other boot: %v", name, err)
		}
	}
	nobody := nsenter.Identity{BootID: id.BootID, Inode: id.Inode}
	_, err := nsenter.OpenIdentityWithoutID(nobody)
	mustLeaveOpen(t, err, "but no task proves that it is the same")
	_, err = nsenter.OpenIdentity(nsenter.Identity{Inode: id.Inode})
	mustLeaveOpen(t, err, "has no boot id")
}
