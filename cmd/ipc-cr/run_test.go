package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
