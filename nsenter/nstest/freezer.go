package nstest

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// Freezer returns the directory where the freezer of cgroup v1 is mounted. It
// calls Require(t, "freezer").
func Freezer(t testing.TB) (dir string) {
	t.Helper()
	Require(t, "freezer")
	dir, err := findFreezer()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func checkFreezer() error {
	if err := checkRoot(); err != nil {
		return err
	}
	_, err := findFreezer()
	return err
}

// findFreezer reads proc_pid_mounts(5), whose fields are those of fstab(5).
func findFreezer() (dir string, err error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[2] == "cgroup" && slices.Contains(strings.Split(f[3], ","), "freezer") {
			return f[1], nil
		}
	}
	return "", errors.New("the freezer of cgroup v1 is not mounted")
}
