package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// leavesNothing wants no process of the binary under test, no mount and no
// cgroup of ours at the end of the test, when all its subjects are gone. It is
// to be called first.
func leavesNothing(t testing.TB) {
	t.Helper()
	dir := shared(t)
	t.Cleanup(func() {
		withoutGuard(t)
		if mounts := mountinfo(t); strings.Contains(mounts, dir) {
			t.Errorf("left behind: mounts below %s:\n%s", dir, mounts)
		}
		if left := ourCgroups(); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// ourContainers are the names of runc's containers of this test run: others may
// be under way on this machine.
var ourContainers []string

func ourCgroups() (found []string) {
	for _, id := range ourContainers {
		found = append(found, cgroupsOf(id)...)
	}
	return found
}

func cgroupsOf(id string) (found []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", "/sys/fs/cgroup/*/user.slice/"} {
		some, _ := filepath.Glob(pattern + id)
		found = append(found, some...)
	}
	return found
}

// withoutCgroups ends the tasks that a killed CRIU had begun to restore, and removes
// their cgroups: runc tries that for a third of a second only.
func withoutCgroups(t testing.TB, id string) {
	t.Helper()
	waitFor(t, "no cgroups of the killed restore", func() bool {
		left := cgroupsOf(id)
		for _, dir := range left {
			tasks, _ := os.ReadFile(dir + "/cgroup.procs")
			for _, pid := range strings.Fields(string(tasks)) {
				if n, err := strconv.Atoi(pid); err == nil {
					_ = unix.Kill(n, unix.SIGKILL)
				}
			}
			_ = os.Remove(dir)
		}
		return len(left) == 0
	})
}
