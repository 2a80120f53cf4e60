package infront

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
)

// unmapped is an error where a task of the tree maps System V shared memory:
// criu refuses such a task when it is in that very IPC namespace (criu/cr-dump.c,
// "doesn't live in IPC ns"). A mapping may be of another namespace's segment, which
// the task had before it came here, so that no count of segments shows it.
func unmapped(root int) error {
	tree, err := treeOf(root)
	if err != nil {
		return err
	}
	for _, pid := range tree {
		mapped, err := mapsSysV(pid)
		if err != nil {
			return err
		}
		if mapped {
			return fmt.Errorf("process %d maps System V shared memory", pid)
		}
	}
	return nil
}

// treeOf lists a process and its descendants, as they are at the moment.
func treeOf(root int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, ok := lineage.Parent(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
		delete(children, tree[i]) // pids used again meanwhile could form a ring
	}
	return tree, nil
}

// mapsSysV looks for the name that the kernel gives to such a mapping
// (ipc/shm.c, newseg: "SYSV%08x"). A file of that name is taken for one, as criu
// does at first sight. A process that has ended maps nothing.
func mapsSysV(pid int) (bool, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	lines.Buffer(nil, 5*unix.PathMax) // seq_path escapes a byte with four
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), []byte(" /SYSV")) {
			return true, nil
		}
	}
	if err := lines.Err(); !gone(err) && err != nil {
		return false, fmt.Errorf("read %s: %w", maps.Name(), err)
	}
	return false, nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
