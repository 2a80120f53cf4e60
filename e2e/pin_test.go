package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A pinned namespace is what runc and podman are given to run a container in.
func TestPinForRunc(t *testing.T) {
	nstest.Require(t, "runc")
	pin, saved := pinned(t)
	c := startContainer(t, inIPC(pin))
	compareQueues(t, saved, queues(t, c.ns(t)))
	inside := c.runc(t, "exec", c.id, "cat", "/proc/sysvipc/msg")
	if diff := cmp.Diff(withoutPIDs(table(t, c.ns(t))), withoutPIDs(inside)); diff != "" {
		t.Errorf("/proc/sysvipc/msg in the container (-want +found):\n%s", diff)
	}
}

// withoutPIDs leaves out lspid and lrpid, which are other ones or none in another
// pid namespace.
func withoutPIDs(table string) (lines [][]string) {
	for line := range strings.Lines(table) {
		lines = append(lines, slices.Delete(strings.Fields(line), 5, 7))
	}
	return lines
}

func TestPinForPodman(t *testing.T) {
	nstest.Require(t, "podman")
	pin, saved := pinned(t)
	p := newPodman(t)
	p.start(t, "pinned", "--ipc", "ns:"+pin)
	compareQueues(t, saved, queues(t, namespaceOf(t, p.pid(t, "pinned"))))
}

// pinned restores into a fresh namespace that is pinned, and returns the path
// and the queues of the source.
func pinned(t testing.TB) (pin string, saved []queue) {
	t.Helper()
	source := nstest.Fresh(t)
	saved = ordinary(t, source, 0)
	dir := imagesDir(t)
	run(t, "checkpoint", "--ns", fdPath(source), "--images-dir", dir)
	pin = filepath.Join(t.TempDir(), "pin")
	run(t, "restore", "--new", "--pin", pin, "--images-dir", dir)
	t.Cleanup(func() { nsenter.Unpin(pin) }) // an error after a test that did so
	return pin, saved
}

// The help says: umount and remove the file.
func TestUnpinLeavesNothing(t *testing.T) {
	nstest.Require(t, "root")
	pin, saved := pinned(t)
	ns, err := nsenter.OpenPath(pin)
	if err != nil {
		t.Fatal(err)
	}
	compareQueues(t, saved, queues(t, ns))
	identity, err := ns.Identity()
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	command(t, "umount", pin)
	if err := os.Remove(pin); err != nil {
		t.Error(err)
	}
	if mounts := mountinfo(t); strings.Contains(mounts, pin) {
		t.Errorf("%s is still a mount:\n%s", pin, mounts)
	}
	waitFor(t, "the end of the namespace", func() bool {
		left, err := nsenter.OpenIdentity(identity)
		if err == nil {
			left.Close()
		}
		return errors.Is(err, nsenter.ErrGone)
	})
}

// A restore that fails leaves no pin.
func TestNoPinAfterFailure(t *testing.T) {
	nstest.Require(t, "root")
	dir := imagesDir(t)
	pin := filepath.Join(t.TempDir(), "pin")
	writeFile(t, filepath.Join(dir, "ipcns-msg-1.img"), "x")
	refused(t, "incomplete checkpoint", "restore", "--new", "--pin", pin, "--images-dir", dir)
	if _, err := os.Lstat(pin); !errors.Is(err, fs.ErrNotExist) || strings.Contains(mountinfo(t), pin) {
		t.Errorf("%s is there: %v", pin, err)
	}
}

func mountinfo(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
