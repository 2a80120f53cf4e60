package e2e_test

import (
	"bufio"
	"os"
	"os/exec"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// tenant starts a process of an ordinary user in a namespace, which locks what every
// process there can: the namespace's own file, and a directory that it may read.
func tenant(t testing.TB, ns *nsenter.Namespace, dir string) {
	t.Helper()
	cmd := exec.Command("setpriv", "--reuid", "65534", "--clear-groups",
		"flock", "-F", "-x", "/proc/self/ns/ipc", "flock", "-F", "-x", dir, "sh", "-c", "echo locked; exec sleep 600")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Run(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the tenant says %q, %v", line, err)
	}
}

// openDir is an images directory that everybody may read.
func openDir(t testing.TB, dir string) string {
	t.Helper()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A tenant of the namespace holds every lock that it can. Nobody waits for it.
func TestTenantBlocksNobody(t *testing.T) {
	nstest.Require(t, "root")
	ns := nstest.Fresh(t)
	ordinary(t, ns, 0)
	saved := queues(t, ns)
	dir := openDir(t, imagesDir(t))
	tenant(t, ns, dir)
	run(t, "checkpoint", "--ns", fdPath(ns), "--images-dir", dir, "--freeze")
	inNamespace(t, ns, func() error { return removeQueue(keyed(saved, 0x1234).ID) })
	run(t, "restore", "--ns", fdPath(ns), "--images-dir", dir)
	compareQueues(t, byID(saved), byID(queues(t, ns)))
}

// So it is for a pod's containers, with the hook and with CRIU beside the namespace.
func TestTenantOfPodBlocksNobody(t *testing.T) {
	ways := append([]front{{"hook", func(testing.TB) []string { return nil }}}, allFronts...)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			p := newRuncPod(t, hookConf(t), talking)
			p.goThrough(way.through(t))
			p.crews[0].works(t)
			saved := queues(t, p.ns)
			tenant(t, p.ns, openDir(t, p.members[0].dir))
			mustSave(t, p.members[0])
			inNamespace(t, p.ns, func() error { return removeQueue(saved[0].ID) })
			p.moveTo(t, nstest.Fresh(t))
			tenant(t, p.ns, openDir(t, imagesDir(t))) // the other one has the images
			mustLoad(t, p.members[0])
			compareQueues(t, saved, queues(t, p.ns))
			p.crews[0].works(t)
		})
	}
}
