package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// ordinary are queues in which CRIU gets everything right: root's own, with the
// namespace's qbytes, and no message over 8192 bytes.
func ordinary(t testing.TB, ns *nsenter.Namespace, root int) []queue {
	t.Helper()
	makeQueueAs(t, ns, root, 0x1234, samples...)
	makeQueueAs(t, ns, root, 0)
	high := makeAt(t, ns, root, 7<<15|400, message{3, pattern(8192)}, message{3, pattern(8184)})
	makeQueueAs(t, ns, root, -5, message{9, "last"})
	inNamespace(t, ns, func() error {
		return changeQueue(high, func(d *msqid) {
			d.setInt(atUID, root+33)
			d.setInt(atGID, root+44)
			d.setInt(atMode, 0o640)
		})
	})
	return queues(t, ns)
}

// makeAt makes a private queue that gets this id.
func makeAt(t testing.TB, ns *nsenter.Namespace, root, id int, messages ...message) int {
	t.Helper()
	inNamespace(t, ns, func() error { return setSysctl("kernel/msg_next_id", id) })
	if got := makeQueueAs(t, ns, root, 0, messages...); got != id {
		t.Fatalf("queue %d came out instead of %d", got, id)
	}
	return id
}

// CRIU's dump is taken when other queues are there, so that what it restores
// must be out of our files.
func TestCRIURestoresOurs(t *testing.T) {
	nstest.Require(t, "criu")
	k := startSleeper(t, nstest.Fresh(t))
	ns := k.ns(t)
	saved := ordinary(t, ns, 0)
	ours := checkpointed(t, k.pid, 9)
	otherQueues(t, ns, 0)
	dir := dump(t, k)
	useInstead(t, dir, ours, 9)
	compareQueues(t, saved, queues(t, restore(t, dir).ns(t)))
}

func TestRuncRestoresOurs(t *testing.T) {
	for name, c := range map[string]struct {
		root  int
		edits []specEdit
	}{"host": {0, nil}, "userns": {mappedRoot, []specEdit{inUserNS}}} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, "criu", "runc")
			runcRestoresOurs(t, c.root, c.edits)
		})
	}
}

func runcRestoresOurs(t *testing.T, root int, edits []specEdit) {
	c := startContainer(t, edits...)
	saved := ordinary(t, c.ns(t), root)
	ours := checkpointed(t, c.pid(t), 9)
	otherQueues(t, c.ns(t), root)
	dir := imagesDir(t)
	c.checkpoint(t, dir)
	useInstead(t, dir, ours, 9)
	c.restore(t, dir)
	compareQueues(t, saved, queues(t, c.ns(t)))
}

// The image holds the container's own ids, whatever they are outside.
func TestUserNamespaceBytesAreCRIUs(t *testing.T) {
	nstest.Require(t, "criu", "runc")
	c := startContainer(t, inUserNS)
	ordinary(t, c.ns(t), mappedRoot)
	theirs := imagesDir(t)
	c.checkpoint(t, theirs, "--leave-running")
	n := namespaceNumber(t, theirs)
	ours := checkpointed(t, c.pid(t), n)
	for _, kind := range []string{"msg", "var"} {
		name := fmt.Sprintf("ipcns-%s-%d.img", kind, n)
		compareFiles(t, filepath.Join(theirs, name), filepath.Join(ours, name), false)
	}
}

func checkpointed(t testing.TB, pid, number int) (dir string) {
	t.Helper()
	dir = imagesDir(t)
	run(t, "checkpoint", "--pid", fmt.Sprint(pid), "--images-dir", dir, "--ns-id", fmt.Sprint(number))
	return dir
}

// otherQueues leaves nothing as it was.
func otherQueues(t testing.TB, ns *nsenter.Namespace, root int) {
	t.Helper()
	inNamespace(t, ns, func() error {
		for id := range idsIn(t, ns) {
			if err := removeQueue(id); err != nil {
				return err
			}
		}
		return nil
	})
	makeQueueAs(t, ns, root, 0x4321, message{4, "not this one"})
}

func idsIn(t testing.TB, ns *nsenter.Namespace) map[int]bool {
	t.Helper()
	ids := map[int]bool{}
	for _, q := range queues(t, ns) {
		ids[q.ID] = true
	}
	return ids
}

// useInstead puts our files, which have another number, in the place of CRIU's.
// Their owner stays who we made it: CRIU opens them as that user.
func useInstead(t testing.TB, dir, ours string, number int) {
	t.Helper()
	n := namespaceNumber(t, dir)
	for _, kind := range []string{"msg", "var"} {
		from := filepath.Join(ours, fmt.Sprintf("ipcns-%s-%d.img", kind, number))
		to := filepath.Join(dir, fmt.Sprintf("ipcns-%s-%d.img", kind, n))
		if err := os.Remove(to); err != nil {
			t.Fatalf("CRIU's own image: %v", err)
		}
		command(t, "cp", "-p", from, to)
	}
}

// What CRIU saved ipc-cr restores as CRIU does.
func TestIPCCRRestoresCRIUs(t *testing.T) {
	nstest.Require(t, "criu")
	k := startSleeper(t, nstest.Fresh(t))
	saved, wanted := ordinary(t, k.ns(t), 0), limits(t, k.ns(t))
	dir := dump(t, k)
	byCRIU := restore(t, dir)
	compareQueues(t, saved, queues(t, byCRIU.ns(t)))
	t.Run("fresh", func(t *testing.T) {
		ns := restoredFresh(t, dir)
		compareQueues(t, saved, queues(t, ns))
		if got := limits(t, ns); got != wanted {
			t.Errorf("limits %v, want %v", got, wanted)
		}
	})
	t.Run("running task", func(t *testing.T) {
		target := startSleeper(t, nstest.Fresh(t))
		run(t, "restore", "--pid", fmt.Sprint(target.pid), "--images-dir", dir)
		compareQueues(t, saved, queues(t, target.ns(t)))
	})
}

// restoredFresh restores into a fresh namespace and opens it.
func restoredFresh(t testing.TB, dir string) *nsenter.Namespace {
	t.Helper()
	pin := filepath.Join(t.TempDir(), "ipc")
	run(t, "restore", "--new", "--pin", pin, "--images-dir", dir)
	ns, err := nsenter.OpenPath(pin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := nsenter.Unpin(pin); err != nil {
		t.Fatal(err)
	}
	return ns
}

// Random namespaces, and nearly all of them such that CRIU could not restore
// them: only ours can be compared with the source.
func TestIPCCRRestoresRandom(t *testing.T) {
	nstest.Require(t, "root")
	first, n := seed(t), 30
	if testing.Short() {
		n = 5
	}
	var all []*sample
	for i := range n {
		ns, queues := randomNamespace(t, first+uint64(i))
		all = append(all, &sample{seed: first + uint64(i), ns: ns, queues: queues})
	}
	for _, s := range all {
		t.Run(fmt.Sprint("seed", s.seed), func(t *testing.T) {
			dir := imagesDir(t)
			run(t, "checkpoint", "--ns", fdPath(s.ns), "--images-dir", dir)
			ns := restoredFresh(t, dir)
			compareQueues(t, queues(t, s.ns), queues(t, ns))
			compareQueues(t, byID(s.queues), byID(queues(t, ns)))
			if got, want := limits(t, ns), limits(t, s.ns); got != want {
				t.Errorf("limits %v, want %v", got, want)
			}
		})
	}
}

// fdPath is where another process finds a namespace that the test holds.
func fdPath(ns *nsenter.Namespace) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }
