package infront

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// container is one of runc's, with a state directory of its own.
type container struct{ id, bundle, state string }

// startContainer starts a container that holds still. userns gives it a user
// namespace, join the IPC namespace at a path.
func startContainer(t *testing.T, userns bool, join string) *container {
	t.Helper()
	bundle := imagesDir(t)
	c := &container{id: filepath.Base(bundle), bundle: bundle, state: t.TempDir()}
	c.makeRootfs(t)
	c.runc(t, nil, "", "spec", "--bundle", bundle)
	c.edit(t, userns, join)
	t.Cleanup(func() { c.runc(t, nil, "", "delete", "--force", c.id) })
	c.runc(t, nil, "", "run", "--detach", "--bundle", bundle, c.id)
	return c
}

func (c *container) makeRootfs(t *testing.T) {
	t.Helper()
	for _, sub := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(c.bundle, "rootfs", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(c.bundle, "rootfs/tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("a container needs a root file system: %v", err)
	}
	from, err := os.Open(busybox)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(c.bundle, "rootfs/bin/busybox"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(c.bundle, "rootfs/bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *container) edit(t *testing.T, userns bool, join string) {
	t.Helper()
	path := filepath.Join(c.bundle, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/bin/sh", "-c", "exec </dev/null >/tmp/log 2>&1; sleep 900"}
	delete(process, "rlimits") // raising one needs CAP_SYS_RESOURCE
	spec["root"].(map[string]any)["readonly"] = false
	namespaces := linux["namespaces"].([]any)
	for _, ns := range namespaces {
		if entry := ns.(map[string]any); entry["type"] == "ipc" && join != "" {
			entry["path"] = join
		}
	}
	if userns {
		thousand := []map[string]int{{"containerID": 0, "hostID": 100000, "size": 1000}}
		linux["namespaces"] = append(namespaces, map[string]any{"type": "user"})
		linux["uidMappings"], linux["gidMappings"] = thousand, thousand
	}
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// runc runs it, through the link if there is one. Errors show CRIU's log.
func (c *container) runc(t *testing.T, link *Link, log string, args ...string) string {
	t.Helper()
	cmd := exec.Command("runc", append([]string{"--root", c.state}, args...)...)
	if link != nil {
		inFront(link, cmd)
	}
	return must(t, cmd, log)
}

func (c *container) pid(t *testing.T) int {
	t.Helper()
	var state struct{ Pid int }
	if err := json.Unmarshal([]byte(c.runc(t, nil, "", "state", c.id)), &state); err != nil || state.Pid == 0 {
		t.Fatalf("runc state: pid %d, %v", state.Pid, err)
	}
	return state.Pid
}

func (c *container) checkpoint(t *testing.T, link *Link, more ...string) (dir string) {
	t.Helper()
	dir = imagesDir(t)
	log := filepath.Join(dir, "dump.log")
	c.runc(t, link, log, append(append([]string{"checkpoint"}, more...), "--image-path", dir, "--work-path", dir, c.id)...)
	t.Logf("frozen for %v\n%s", frozenTime(t, dir), wrong(log))
	return dir
}

func (c *container) restore(t *testing.T, dir string) {
	t.Helper()
	c.runc(t, nil, filepath.Join(dir, "restore.log"), "restore", "--detach", "--bundle", c.bundle,
		"--image-path", dir, "--work-path", dir, c.id)
}

// A container checkpointed through the link is restored by runc alone.
func TestRuncCheckpointBesideAndRestore(t *testing.T) {
	nstest.Require(t, "criu", "runc")
	for _, userns := range []bool{false, true} {
		t.Run(fmt.Sprintf("userns %v", userns), func(t *testing.T) {
			c := startContainer(t, userns, "")
			before := namespaceOf(t, c.pid(t))
			var root kernel.Creator
			if userns {
				root = kernel.Creator{UID: 100000, GID: 100000}
			}
			fillAs(t, before, 2000, root)
			want := content(t, before)
			link := newLink(t)
			plain := c.checkpoint(t, nil, "--leave-running")
			dir := c.checkpoint(t, link)
			if link.Said() != "" {
				t.Errorf("said %q", link.Said())
			}
			t.Logf("2,000 messages: frozen %v beside, %v the ordinary way", frozenTime(t, dir), frozenTime(t, plain))
			c.restore(t, dir)
			after := namespaceOf(t, c.pid(t))
			if same, err := after.Same(before); err != nil || same || after.IsHost() {
				t.Errorf("restored into %s (%v), dumped in %s", after, err, before)
			}
			if content(t, after) != want {
				t.Error("other queues than before")
			}
		})
	}
}

// mover passes messages around in its IPC namespace as fast as it can.
var mover = nstest.Program("infront.mover", func([]string) { moveMessages() })

// A neighbour in a shared namespace that never rests tears nothing, and stands
// still for the copy alone.
func TestRuncCheckpointBesideAMover(t *testing.T) {
	nstest.Require(t, "criu", "runc")
	ns := nstest.Fresh(t)
	fill(t, ns, 200)
	neighbour := nstest.Start(t, ns, mover)
	c := startContainer(t, false, "/proc/"+strconv.Itoa(neighbour.PID())+"/ns/ipc")
	for range 3 {
		began := time.Now()
		dir := c.checkpoint(t, newLink(t), "--leave-running")
		t.Logf("%v", time.Since(began))
		count, err := countMessages(onlyName(t, dir))
		if err != nil || count != 200 && count != 199 {
			t.Errorf("%d messages, %v: want the 200, or less the one in the mover's hands", count, err)
		}
	}
}
