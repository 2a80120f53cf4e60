package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// samples are messages that CRIU itself can carry, around its 8-byte padding.
var samples = []message{{1, ""}, {7, "seven.."}, {2, "eight..."}, {2, "nine....."}, {1 << 40, pattern(8000)}}

// The tests here prove the rig with nothing of ours between.

func TestRigCRIU(t *testing.T) {
	nstest.Require(t, "criu")
	k := startTask(t, nstest.Fresh(t), 2)
	makeQueue(t, k.ns(t), 0x1234, samples...)
	makeQueue(t, k.ns(t), 0)
	saved := queues(t, k.ns(t))
	compareMessages(t, saved[0].Messages)

	dir := dump(t, k, "--leave-running")
	compareQueues(t, saved, queues(t, k.ns(t)))
	checkImages(t, dir, 2)

	k.kill(t)
	compareQueues(t, saved, queues(t, restore(t, dir).ns(t)))
}

func TestRigRunc(t *testing.T) {
	nstest.Require(t, "criu", "runc")
	roundTripWithRunc(t, 0)
}

func TestRigRuncJoinsNamespace(t *testing.T) {
	nstest.Require(t, "runc")
	ns := nstest.Fresh(t)
	makeQueue(t, ns, 0x1234, samples...)
	c := startContainer(t, inIPC(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())))
	compareQueues(t, queues(t, ns), queues(t, c.ns(t)))
}

func TestRigBinary(t *testing.T) {
	if out := command(t, ipcCR(t), "version"); out == "" {
		t.Error("ipc-cr version says nothing")
	}
}

func TestRigRuncUserNamespace(t *testing.T) {
	nstest.Require(t, "criu", "runc")
	roundTripWithRunc(t, mappedRoot, inUserNS)
}

func roundTripWithRunc(t *testing.T, root int, edits ...specEdit) {
	t.Helper()
	c := startContainer(t, edits...)
	makeQueueAs(t, c.ns(t), root, 0x1234, samples...)
	saved, dir := queues(t, c.ns(t)), imagesDir(t)
	c.checkpoint(t, dir)
	checkImages(t, dir, 1)
	c.restore(t, dir)
	compareQueues(t, saved, queues(t, c.ns(t)))
}

func TestRigPodman(t *testing.T) {
	nstest.Require(t, "criu", "podman")
	p := newPodman(t)
	p.start(t, "one")
	makeQueue(t, namespaceOf(t, p.pid(t, "one")), 0x1234, samples...)
	saved := queues(t, namespaceOf(t, p.pid(t, "one")))
	archive := filepath.Join(t.TempDir(), "one.tar")
	p.run(t, "container", "checkpoint", "--export", archive, "--compress", "none", "one")
	p.run(t, "rm", "one")
	p.run(t, "container", "restore", "--import", archive)
	compareQueues(t, saved, queues(t, namespaceOf(t, p.pid(t, "one"))))
}

func checkImages(t *testing.T, dir string, queues int) {
	t.Helper()
	n := namespaceNumber(t, dir)
	msg := showImage(t, filepath.Join(dir, fmt.Sprintf("ipcns-msg-%d.img", n)))
	if msg.Magic != "IPCNS_MSG" || len(msg.Entries) != queues {
		t.Errorf("message image has magic %q and %d queues, want IPCNS_MSG and %d", msg.Magic, len(msg.Entries), queues)
	}
	if vars := showImage(t, filepath.Join(dir, fmt.Sprintf("ipcns-var-%d.img", n))); vars.Magic != "IPC_VAR" {
		t.Errorf("sysctl image has magic %q, want IPC_VAR", vars.Magic)
	}
}

func compareMessages(t *testing.T, got []message) {
	t.Helper()
	if diff := cmp.Diff(samples, got); diff != "" {
		t.Errorf("messages (-sent +found):\n%s", diff)
	}
}

func compareQueues(t *testing.T, want, got []queue) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("queues (-want +found):\n%s", diff)
	}
}
