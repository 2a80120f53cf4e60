package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// A container is one of runc's or crun's, which have the same command line, with
// its bundle and with a state directory that no other container shares.
type container struct {
	runtime, id, bundle, state string
}

// A specEdit changes the config.json that `runc spec` proposes.
type specEdit func(spec map[string]any)

// startContainer starts a container that holds still. It has an IPC namespace
// of its own unless an edit says otherwise.
func startContainer(t testing.TB, edits ...specEdit) *container {
	t.Helper()
	return startContainerBy(t, "runc", edits...)
}

func startContainerBy(t testing.TB, runtime string, edits ...specEdit) *container {
	t.Helper()
	bundle, err := os.MkdirTemp(shared(t), "bundle-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(bundle, 0o711); err != nil {
		t.Fatal(err)
	}
	c := &container{runtime: runtime, id: "ipc-cr-e2e-" + filepath.Base(bundle), bundle: bundle, state: t.TempDir()}
	makeRootfs(t, filepath.Join(bundle, "rootfs"))
	c.writeSpec(t, append([]specEdit{holdingStill}, edits...))
	t.Cleanup(func() { c.remove(t) })
	c.runc(t, "run", "--detach", "--bundle", bundle, c.id)
	return c
}

// sibling is another container, that does not exist yet, in a copy of the bundle
// of one that is stopped.
func (c *container) sibling(t testing.TB) *container {
	t.Helper()
	again := &container{runtime: c.runtime, id: c.id + "-again", bundle: c.bundle + "-again", state: c.state}
	if out, err := exec.Command("cp", "-a", c.bundle, again.bundle).CombinedOutput(); err != nil {
		t.Fatalf("copy the bundle: %v: %s", err, out)
	}
	t.Cleanup(func() { os.RemoveAll(again.bundle) })
	return again
}

func (c *container) writeSpec(t testing.TB, edits []specEdit) {
	t.Helper()
	c.runc(t, "spec", "--bundle", c.bundle)
	for _, edit := range edits {
		c.edit(t, edit)
	}
}

// edit changes the container's config.json.
func (c *container) edit(t testing.TB, edit specEdit) {
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
	edit(spec)
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(text))
}

func holdingStill(spec map[string]any) {
	process := spec["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = holdStill
	delete(process, "rlimits") // raising one needs CAP_SYS_RESOURCE
	spec["root"].(map[string]any)["readonly"] = false
}

// inIPC makes the container join the IPC namespace at path.
func inIPC(path string) specEdit {
	return func(spec map[string]any) {
		for _, ns := range linuxOf(spec)["namespaces"].([]any) {
			if entry := ns.(map[string]any); entry["type"] == "ipc" {
				entry["path"] = path
			}
		}
	}
}

// mappedRoot is what the root of a container that is inUserNS is outside.
const mappedRoot = 100000

// inUserNS gives the container a user namespace with a thousand ids, 0 standing
// for mappedRoot.
func inUserNS(spec map[string]any) {
	linux := linuxOf(spec)
	linux["namespaces"] = append(linux["namespaces"].([]any), map[string]any{"type": "user"})
	thousand := []map[string]int{{"containerID": 0, "hostID": mappedRoot, "size": 1000}}
	linux["uidMappings"], linux["gidMappings"] = thousand, thousand
}

func linuxOf(spec map[string]any) map[string]any { return spec["linux"].(map[string]any) }

// pid returns the pid of the container's init.
func (c *container) pid(t testing.TB) int {
	t.Helper()
	var state struct{ Pid int }
	if err := json.Unmarshal([]byte(c.runc(t, "state", c.id)), &state); err != nil || state.Pid == 0 {
		t.Fatalf("runc state %s: pid %d, %v", c.id, state.Pid, err)
	}
	return state.Pid
}

// ns opens the container's IPC namespace.
func (c *container) ns(t testing.TB) *nsenter.Namespace {
	t.Helper()
	return namespaceOf(t, c.pid(t))
}

// checkpoint writes the container's images into dir; with --leave-running among
// the arguments it lives on.
func (c *container) checkpoint(t testing.TB, dir string, args ...string) {
	t.Helper()
	c.runc(t, append(append([]string{"checkpoint"}, args...), "--image-path", dir, "--work-path", dir, c.id)...)
}

// restore brings the container back; it must not run any more.
func (c *container) restore(t testing.TB, dir string, args ...string) {
	t.Helper()
	c.runc(t, append(append([]string{"restore", "--detach", "--bundle", c.bundle}, args...), "--image-path", dir, "--work-path", dir, c.id)...)
}

func (c *container) remove(t testing.TB) {
	c.runc(t, "delete", "--force", c.id)
	if err := os.RemoveAll(c.bundle); err != nil {
		t.Error(err)
	}
}

// runc, or what stands for it, must succeed. What it writes goes to a file: a container that it starts
// keeps its stdio, and a pipe's end would be waited for.
func (c *container) runc(t testing.TB, args ...string) string {
	t.Helper()
	out, err := outputOf(exec.Command(c.runtime, append([]string{"--root", c.state}, args...)...))
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", c.runtime, args, err, out, errorsIn(logOf(args)))
	}
	return string(out)
}

// outputOf runs a program that may leave others behind with its stdout.
func outputOf(cmd *exec.Cmd) ([]byte, error) {
	file, err := os.CreateTemp("", "ipc-cr-e2e-out-")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = file, file
	failure := cmd.Run()
	out, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out), failure
}

// logOf returns the CRIU log of a runc command line, "" if it has none.
func logOf(args []string) string {
	for i, arg := range args {
		if arg == "--work-path" {
			return filepath.Join(args[i+1], map[string]string{"checkpoint": "dump.log", "restore": "restore.log"}[args[0]])
		}
	}
	return ""
}
