package criuhook

import (
	"os"
	"os/exec"
	"testing"
)

// childHolding starts a child of this process that has a directory open.
func childHolding(t *testing.T, dir string) int {
	t.Helper()
	open, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = []*os.File{open}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// Of two that work at once in different directories each is found, of two in the
// same none is chosen, and this process itself, which has it open, is no child.
func TestChildWithOpen(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	ours, err := os.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if pid, err := childWithOpen(os.Getpid(), first); err == nil {
		t.Errorf("found %d, without a child that has it open", pid)
	}
	if pid, err := childWithOpen(os.Getpid(), first+"/none"); err == nil {
		t.Errorf("found %d for a directory that is not there", pid)
	}
	for _, dir := range []string{first, second} {
		want := childHolding(t, dir)
		if pid, err := childWithOpen(os.Getpid(), dir); err != nil || pid != want {
			t.Errorf("found %d, %v, want %d", pid, err, want)
		}
	}
	childHolding(t, second)
	if pid, err := childWithOpen(os.Getpid(), second); err == nil {
		t.Errorf("chose %d, one of two", pid)
	}
}
