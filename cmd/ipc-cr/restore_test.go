package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// exampleImages are the images of an example.
func exampleImages(t *testing.T) (dir string) {
	t.Helper()
	_, path := example(t)
	dir = filepath.Join(t.TempDir(), "images")
	mustRun(t, "checkpoint", "--ns", path, "-D", dir)
	return dir
}

// The command behind -- runs in the fresh namespace, in our place.
func TestRestoreRunsCommand(t *testing.T) {
	nstest.Require(t, "userns")
	dir := exampleImages(t)
	p := nstest.Start(t, nil, commandProgram, "restore", "--new", "-D", dir, "--", "sh", "-c", "cat /proc/sysvipc/msg; exit 7")
	status, out := runProcess(p)
	if status != 7 {
		t.Errorf("exit status %d, want the command's 7", status)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "restored 2 queues, 4 messages, 36 bytes") ||
		strings.Fields(lines[2])[0] != "4660" || strings.Fields(lines[2])[4] != "3" || strings.Fields(lines[3])[4] != "1" {
		t.Errorf("stdout %q, want the report and two queues", out)
	}
}

// What cannot be run is said before anything is restored, where that is known.
func TestRestoreCommandFails(t *testing.T) {
	nstest.Require(t, "userns")
	dir := exampleImages(t)
	runCommand(t, "restore", "--new", "-D", dir, "--", "no-such-command").wantError(t, 1, "restore: find the command", "no-such-command")
	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(odd, []byte("neither a program nor a script"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := nstest.Start(t, nil, commandProgram, "restore", "--new", "-D", dir, "--", odd)
	if status, _ := runProcess(p); status != 1 {
		t.Errorf("exit status %d", status)
	}
}

// --pin keeps the fresh namespace until it is unpinned.
func TestRestorePin(t *testing.T) {
	nstest.Require(t, "root")
	dir, pin := exampleImages(t), filepath.Join(t.TempDir(), "pin")
	out := mustRun(t, "restore", "--new", "--pin", pin, "-D", dir)
	t.Cleanup(func() {
		if err := nsenter.Unpin(pin); err != nil {
			t.Error(err)
		}
	})
	ns, err := nsenter.OpenPath(pin)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if queues, messages := countMessages(t, ns); queues != 2 || messages != 4 {
		t.Errorf("%d queues with %d messages, want 2 with 4", queues, messages)
	}
	if !strings.Contains(out, ns.String()) {
		t.Errorf("the report %q does not name %s", out, ns)
	}
	// A rerun has nowhere to pin to, and changes nothing of the first.
	r := runCommand(t, "restore", "--new", "--pin", pin, "-D", dir)
	if r.status != 1 || !strings.Contains(r.err, "a namespace is pinned there") {
		t.Errorf("exit status %d, stderr %q", r.status, r.err)
	}
	mustRun(t, "checkpoint", "--ns", pin, "-D", filepath.Join(t.TempDir(), "images"))
}

// Where nothing can be pinned nothing is restored.
func TestRestorePinNowhere(t *testing.T) {
	nstest.Require(t, "userns")
	pin := filepath.Join(t.TempDir(), "missing", "pin")
	r := runCommand(t, "restore", "--new", "--pin", pin, "-D", exampleImages(t))
	r.wantError(t, 1, fmt.Sprintf("pin at %q", pin), fmt.Sprintf("open directory %q: no such file", filepath.Dir(pin)+"/"), "mkdir -p "+filepath.Dir(pin))
}

// Who cannot write the report says that the work is done, and keeps the pin.
func TestReportNotWritten(t *testing.T) {
	nstest.Require(t, "root")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	dir, pin := exampleImages(t), filepath.Join(t.TempDir(), "pin")
	again := filepath.Join(t.TempDir(), "images")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"restore", "--new", "--pin", pin, "-D", dir}, "restore: " + dir + " is restored into ipc:["},
		{[]string{"checkpoint", "--ns", pin, "-D", again}, "checkpoint: it is complete in " + again},
	} {
		var errs bytes.Buffer
		status := run(t.Context(), c.args, full, &errs)
		if status != 1 || !strings.Contains(errs.String(), c.want) || !strings.Contains(errs.String(), "the report could not be written: ") {
			t.Errorf("%q: exit status %d, stderr %q, want %q", c.args, status, errs.String(), c.want)
		}
	}
	if err := nsenter.Unpin(pin); err != nil {
		t.Error(err)
	}
	mustRun(t, "show", again)
}

// A command that cannot be run takes the pin with it.
func TestRestorePinUndone(t *testing.T) {
	nstest.Require(t, "root")
	dir, pin := exampleImages(t), filepath.Join(t.TempDir(), "pin")
	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(odd, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	p := nstest.Start(t, nil, commandProgram, "restore", "--new", "--pin", pin, "-D", dir, "--", odd)
	if status, _ := runProcess(p); status != 1 {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Lstat(pin); !os.IsNotExist(err) {
		t.Errorf("the pin is left: %v; unpinned: %v", err, nsenter.Unpin(pin))
	}
}

// A dry run of --new makes a namespace that ends with it.
func TestRestoreNewDryRun(t *testing.T) {
	nstest.Require(t, "userns")
	out := mustRun(t, "restore", "--new", "--dry-run", "-D", exampleImages(t))
	if !strings.HasPrefix(out, "would restore 2 queues") {
		t.Errorf("stdout %q", out)
	}
}

// Failures are exit status 1 and one line that names the object and the step.
func TestFailures(t *testing.T) {
	nstest.Require(t, "userns")
	_, path := example(t)
	dir := exampleImages(t)
	fresh := filepath.Join(t.TempDir(), "images")
	fifo := filepath.Join(t.TempDir(), "fifo")
	for _, c := range []struct {
		args  string
		words []string
	}{
		{"checkpoint --pid 2147483647 -D " + fresh, []string{"checkpoint: open ipc namespace of process 2147483647", "no such process"}},
		{"checkpoint --ns /dev/null -D " + fresh, []string{"checkpoint: open ipc namespace \"/dev/null\"", "is a character device, not an ipc namespace"}},
		{"checkpoint --ns /proc/self/ns/net -D " + fresh, []string{"is a network namespace, not an ipc namespace"}},
		{"checkpoint --ns " + fifo + " -D " + fresh, []string{fifo, "no such file or directory"}},
		{"checkpoint --ns " + path + " -D " + dir, []string{"checkpoint ipc:[", "images directory " + dir, "--force"}},
		{"checkpoint --ns " + path + " -D " + fresh + "/deeper", []string{"make images directory: mkdir " + fresh + "/deeper: no such file or directory"}},
		{"restore --ns " + path + " -D " + fresh, []string{"restore " + fresh + " into ipc:[", "open images directory " + fresh + ": no such file or directory"}},
		{"restore --ns " + path + " -D " + dir + " --ns-id 5", []string{"no images of namespace number 5, only of 1"}},
		{"restore --pid 2147483647 -D " + dir, []string{"restore: open ipc namespace of process 2147483647"}},
	} {
		runCommand(t, strings.Fields(c.args)...).wantError(t, 1, c.words...)
		wantNothingLeft(t, fresh)
	}
}

// A reader that goes away is an error of show, which is nothing but output.
func TestShowIntoNothing(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, format := range []string{"--json=false", "--json"} {
		var errs strings.Builder
		if status := run(t.Context(), []string{"show", "testdata/images", format}, full, &errs); status != 1 || !strings.Contains(errs.String(), "no space left on device") {
			t.Errorf("%s: exit status %d, stderr %q", format, status, errs.String())
		}
	}
	var errs strings.Builder
	if status := run(t.Context(), []string{"check", "--json"}, full, &errs); status != 1 {
		t.Errorf("check: exit status %d, stderr %q", status, errs.String())
	}
}
