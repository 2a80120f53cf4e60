package criuhook

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
)

// childWithOpen finds the only child of a process that has a directory open: in a
// program that drives CRIU that is the CRIU which works on it, from its first
// notification on (criu/cr-service.c, open_image_dir). Neither its command line
// tells it, for CRIU renames itself when a request comes, nor its program, which
// is another where it is started through a loader.
func childWithOpen(parent int, dir string) (int, error) {
	wanted, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	found := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !isChild(pid, parent) || !hasOpen(pid, wanted) {
			continue
		}
		if found != 0 {
			return 0, fmt.Errorf("processes %d and %d both have %s open: say which is criu", found, pid, dir)
		}
		found = pid
	}
	if found == 0 {
		return 0, fmt.Errorf("no child of process %d has %s open: say which process is criu", parent, dir)
	}
	return found, nil
}

func isChild(pid, parent int) bool {
	above, ok := lineage.Parent(pid)
	return ok && above == parent
}

// hasOpen says whether a process has a file open. One whose descriptors cannot be
// read has not: it has ended, or is another user's.
func hasOpen(pid int, wanted os.FileInfo) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		open, err := os.Stat(filepath.Join(dir, entry.Name()))
		if err == nil && os.SameFile(open, wanted) {
			return true
		}
	}
	return false
}
