package criuhook

import (
	"slices"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
)

// family is the processes that CRIU takes care of, and those that wait for it:
// the tree below the container's first process, CRIU's own, and CRIU's ancestors.
// The warden is in the namespace where CRIU is.
type family struct {
	init, criu int
	warden     int // 0 for none
}

// has reports whether a process belongs to it. Trees grow: ask anew each time.
func (f family) has(pid int) bool {
	if pid == f.criu || pid == f.warden || descends(pid, f.init) || descends(pid, f.criu) {
		return true
	}
	return descends(f.criu, pid)
}

// descends reports whether pid is ancestor or below it.
func descends(pid, ancestor int) bool { return slices.Contains(lineage.Of(pid), ancestor) }

// neighbours counts the processes of a namespace that do not belong to the
// family.
func (f family) neighbours(ns *nsenter.Namespace) (int, error) {
	pids, err := f.neighboursIn(ns)
	return len(pids), err
}

// neighboursIn returns the processes of a namespace that do not belong to the family.
func (f family) neighboursIn(ns *nsenter.Namespace) (pids []int, err error) {
	tasks, _, err := nsenter.Tasks(ns)
	if err != nil {
		return nil, err
	}
	for _, task := range tasks {
		if !f.has(task.PID) {
			pids = append(pids, task.PID)
		}
	}
	return pids, nil
}
