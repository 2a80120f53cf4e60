package criuhook

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// family is the processes that CRIU takes care of, and those that wait for it:
// the tree below the container's first process, CRIU's own, and CRIU's ancestors.
// The warden is in the namespace where CRIU is.
type family struct {
	init, criu int
	warden     int // 0 for none
}

// has tells whether a process belongs to it. Trees grow: ask anew each time.
func (f family) has(pid int) bool {
	if pid == f.criu || pid == f.warden || descends(pid, f.init) || descends(pid, f.criu) {
		return true
	}
	return descends(f.criu, pid)
}

// descends tells whether pid is ancestor or below it.
func descends(pid, ancestor int) bool {
	const deepest = 1 << 16 // more than there are pids: parents change while they are read
	for range deepest {
		if pid == ancestor {
			return pid > 0
		}
		parent, err := parentOf(pid)
		if err != nil || parent <= 0 {
			return false
		}
		pid = parent
	}
	return false
}

// parentOf reads field 4 of proc_pid_stat(5). The name before it is the process's
// own choice.
func parentOf(pid int) (int, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("stat of process %d: %d fields after the name", pid, len(fields))
	}
	return strconv.Atoi(string(fields[1]))
}

// neighbours counts the processes of a namespace that do not belong to the
// family.
func (f family) neighbours(ns *nsenter.Namespace) (int, error) {
	tasks, _, err := nsenter.Tasks(ns)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, task := range tasks {
		if !f.has(task.PID) {
			n++
		}
	}
	return n, nil
}
