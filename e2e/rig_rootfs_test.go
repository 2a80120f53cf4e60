package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// holdStill is what the containers run: nothing of the host's for stdio, which
// CRIU would refuse, and an end of its own should a test never come to it.
var holdStill = []string{"/bin/sh", "-c", "exec </dev/null >/tmp/log 2>&1; sleep 900"}

// makeRootfs makes the root of a container with busybox in it.
func makeRootfs(t testing.TB, dir string) {
	t.Helper()
	for _, sub := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The log goes there, in a user namespace too.
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("a container needs a root file system: %v", err)
	}
	if err := copyFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "sleep", "cat"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
}
