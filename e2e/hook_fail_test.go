package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// plant puts a directory where the hook's own file is to go; unplant takes it away.
const (
	plant   = `for f in "$dir"/ipcns-var-*.img; do n=${f##*-}; mkdir -p "$dir/ipc-cr-${n%.img}.json"; done`
	unplant = `rmdir "$dir"/ipc-cr-*.json 2>/dev/null`
)

// failures are what may go wrong with a checkpoint, from its first action to
// its last.
var failures = []struct{ name, action, body string }{
	{"another script at pre-dump", "pre-dump", "exit 1"},
	{"another script at post-dump", "post-dump", "exit 1"},
	{"hook at post-dump", "post-dump", plant},
}

// TestHookFailedCheckpoint wants the container to go on as if nobody had asked.
func TestHookFailedCheckpoint(t *testing.T) {
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			each(t, waysFor(f.name == failures[2].name), func(t *testing.T, w way) {
				m, cleared := at(t, f.action, f.body), at(t, "pre-dump", unplant)
				c := newCrew(t, talking...)
				failedCheckpoint(t, c, w.start(t, c, hookConf(t, cleared.script, m.script)), func() { m.over(t) })
			})
		})
	}
}

func failedCheckpoint(t *testing.T, c *crew, sub subject, over func()) {
	t.Helper()
	before := c.ask(t, "go")
	c.advance(t, before, 20)
	if sub.save(t) == nil {
		t.Fatal("the checkpoint succeeds")
	}
	c.advance(t, c.ask(t, "report"), 20)
	checkRuns(t, sub.pid(t))
	withoutGuard(t)
	if t.Failed() {
		t.Fatal(sub.logs())
	}
	over()
	mustSave(t, sub)
	mustLoad(t, sub)
	c.advance(t, c.ask(t, "report"), 20)
	c.ask(t, "stop")
	accounted(t, nsOf(t, sub), []*crew{c})
}

// The images directory fills up at CRIU's first files, at its last, and at ours.
func TestHookFullDisk(t *testing.T) {
	each(t, []way{byCRIU, byRunc}, func(t *testing.T, w way) {
		c := newCrew(t, talking...)
		sub := w.start(t, c, hookConf(t))
		big := makeQueue(t, nsOf(t, sub), 0x4444)
		inNamespace(t, nsOf(t, sub), func() error { return setQbytes(big, 1<<20) })
		for range 100 {
			sendAll(t, nsOf(t, sub), big, message{1, pattern(8192)})
		}
		mustSave(t, sub, "--leave-running")
		whole := usedBy(t, dirOf(sub))
		for _, size := range []int{64 << 10, whole / 2, whole - 400<<10} {
			fullDisk(t, c, sub, size)
		}
	})
}

func fullDisk(t *testing.T, c *crew, sub subject, size int) {
	t.Helper()
	dir := imagesDir(t)
	mountOver(t, dir, 0, fmt.Sprint("size=", size))
	setDir(sub, dir)
	before := c.ask(t, "go")
	c.advance(t, before, 20)
	saved := sub.save(t)
	if saved == nil {
		t.Fatalf("a checkpoint in %d bytes succeeds", size)
	}
	c.advance(t, c.ask(t, "report"), 20)
	c.ask(t, "stop")
	accounted(t, nsOf(t, sub), []*crew{c})
	if t.Failed() {
		t.Fatalf("%d bytes: %v\n%s", size, saved, sub.logs())
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Errorf("somebody holds the directory: %v", err)
	}
}

func dirOf(s subject) string {
	if s, ok := s.(*runcSubject); ok {
		return s.dir
	}
	return s.(*criuSubject).dir
}

func setDir(s subject, dir string) {
	switch s := s.(type) {
	case *runcSubject:
		s.dir = dir
	case *criuSubject:
		s.dir = dir
	}
}

func usedBy(t testing.TB, dir string) (bytes int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		bytes += (int(info.Size()) + 4095) &^ 4095
	}
	return bytes
}

// waysFor leaves podman, which takes seconds each time, to one of several cases:
// it only starts runc.
func waysFor(podmanToo bool) []way {
	if podmanToo {
		return allWays
	}
	return []way{byCRIU, byRunc}
}

// restoreActions are those at which CRIU asks us and can still be made to fail.
var restoreActions = []string{"pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore"}

// TestHookFailedRestore wants the image as it was, under its own name, and the
// next try to succeed.
func TestHookFailedRestore(t *testing.T) {
	for _, action := range restoreActions {
		t.Run(action, func(t *testing.T) {
			each(t, waysFor(action == "post-setup-namespaces"), func(t *testing.T, w way) {
				m := at(t, action, "exit 1")
				c := newCrew(t, talking...)
				sub := w.start(t, c, hookConf(t, m.script))
				c.works(t)
				everything.make(t, nsOf(t, sub))
				saved := queues(t, nsOf(t, sub))
				mustSave(t, sub)
				images := imagesIn(t, sub)
				if sub.load(t) == nil {
					t.Fatal("the restore succeeds")
				}
				failedRestoreEnds(t, sub)
				if diff := cmp.Diff(images, imagesIn(t, sub)); diff != "" {
					t.Errorf("images (-before +after):\n%s\n%s", diff, sub.logs())
				}
				m.over(t)
				mustLoad(t, sub)
				compareQueues(t, saved, queues(t, nsOf(t, sub)))
				c.works(t)
			})
		})
	}
}

// failedRestoreEnds takes away what the program leaves of a failed restore.
func failedRestoreEnds(t *testing.T, sub subject) {
	t.Helper()
	withoutGuard(t)
	if s, ok := sub.(*runcSubject); ok {
		exec.Command("runc", "--root", s.state, "delete", "--force", s.id).Run() // an error where nothing is left
	}
}

// imagesIn returns CRIU's files of the namespace and ours, with their content.
func imagesIn(t testing.TB, sub subject) map[string]string {
	t.Helper()
	var dirs []string
	switch s := sub.(type) {
	case *podmanSubject:
		dirs, _ = filepath.Glob(s.podman.dir + "/root/vfs-containers/*/userdata/checkpoint")
	default:
		dirs = []string{dirOf(s)}
	}
	found := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if !strings.Contains(entry.Name(), "ipc") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			found[entry.Name()] = string(text)
		}
	}
	if len(found) < 2 {
		t.Fatalf("no images of the namespace below %q", dirs)
	}
	return found
}

// In a namespace that is joined, a restore that fails before the hook has made
// anything leaves the namespace as it was; one that fails later leaves what it
// has made, and the next try uses that.
func TestHookFailedRestoreInPod(t *testing.T) {
	for _, action := range restoreActions {
		t.Run(action, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			m := at(t, action, "exit 1")
			p := newRuncPod(t, hookConf(t, m.script), oneEnd, otherEnd)
			work(t, p.crews...)
			everything.make(t, p.ns)
			saved := queues(t, p.ns)
			mustSave(t, p.members[0])
			mustSave(t, p.members[1])
			p.moveTo(t, nstest.Fresh(t))
			if p.members[0].load(t) == nil {
				t.Fatal("the restore succeeds")
			}
			failedRestoreEnds(t, p.members[0])
			left := queues(t, p.ns)
			if early := slices.Index(restoreActions, action) < 2; early && len(left) > 0 {
				t.Errorf("%d queues are left behind", len(left))
			}
			m.over(t)
			for _, s := range p.members {
				mustLoad(t, s)
				compareQueues(t, saved, queues(t, p.ns))
			}
			work(t, p.crews...)
			accounted(t, p.ns, p.crews)
		})
	}
}
