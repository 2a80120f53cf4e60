package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"
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
		for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", "/sys/fs/cgroup/*/user.slice/"} {
			some, _ := filepath.Glob(pattern + id)
			found = append(found, some...)
		}
	}
	return found
}
