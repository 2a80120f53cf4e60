package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// The command finds the place in front of criu first on PATH, its exit status is
// ours, and the directory is gone afterwards.
func TestRun(t *testing.T) {
	script := `command -v criu; readlink -f "$(command -v criu)"; exit 7`
	got := runCommand(t, "run", "--", "sh", "-c", script)
	lines := strings.Fields(got.out)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got.status != 7 || len(lines) != 2 || filepath.Base(lines[0]) != "criu" || lines[1] != self {
		t.Fatalf("status %d, %q, stderr %q: want 7 and a link to %s", got.status, got.out, got.err, self)
	}
	if _, err := os.Stat(filepath.Dir(lines[0])); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestRunOfASignal(t *testing.T) {
	if got := runCommand(t, "run", "sh", "-c", "kill -TERM $$"); got.status != 128+15 {
		t.Errorf("status %d, want 143", got.status)
	}
	runCommand(t, "run", "--", "no-such-command").wantError(t, 1, "no-such-command")
	runCommand(t, "run").wantError(t, 2, "requires at least 1 arg(s)")
}

// putCRIU puts a criu of that version on PATH, where root runs it.
func putCRIU(t *testing.T, version string) (path string) {
	t.Helper()
	nstest.Require(t, "root")
	dir, err := os.MkdirTemp("/var/lib", "ipc-cr-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "criu")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte("#!/bin/sh\necho Version: "+version+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return path
}

// Before a criu that would abort on the hook nothing is put, and one line says so;
// the command is run all the same.
func TestRunWithOldCRIU(t *testing.T) {
	const script = "command -v criu; exit 7"
	old := putCRIU(t, "3.17.1")
	got := runCommand(t, "run", "--", "sh", "-c", script)
	if got.status != 7 || got.out != old+"\n" {
		t.Errorf("status %d, %q, want 7, %s", got.status, got.out, old)
	}
	want := "ipc-cr: run: nothing is put in front of criu, and a dump goes the ordinary way: " + old + " is CRIU 3.17: "
	if !strings.HasPrefix(got.err, want) || !strings.HasSuffix(got.err, ": install CRIU 3.19 or later\n") || strings.Count(got.err, "\n") != 1 {
		t.Errorf("stderr %q", got.err)
	}
	putCRIU(t, "3.19")
	if got := runCommand(t, "run", "--", "sh", "-c", script); got.status != 7 || !strings.Contains(got.out, "/ipc-cr-run-") || got.err != "" {
		t.Errorf("3.19: %+v", got)
	}
}
