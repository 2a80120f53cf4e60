package criuhook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
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
	if pid, err := childWithOpen(os.Getpid(), first); fmt.Sprint(err) != fmt.Sprintf("no child of process %d has %s open: say which process is criu", os.Getpid(), first) {
		t.Errorf("found %d, %v, without a child that has it open", pid, err)
	}
	if pid, err := childWithOpen(os.Getpid(), first+"/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found %d, %v for a directory that is not there", pid, err)
	}
	var last int
	for _, dir := range []string{first, second} {
		last = childHolding(t, dir)
		if pid, err := childWithOpen(os.Getpid(), dir); err != nil || pid != last {
			t.Errorf("found %d, %v, want %d", pid, err, last)
		}
	}
	both := []int{last, childHolding(t, second)}
	slices.Sort(both)
	if pid, err := childWithOpen(os.Getpid(), second); fmt.Sprint(err) != fmt.Sprintf("processes %d and %d both have %s open: say which is criu", both[0], both[1], second) {
		t.Errorf("chose %d of %d, %v", pid, both, err)
	}
}
