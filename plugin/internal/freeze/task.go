package freeze

import (
	"cmp"
	"fmt"
	"slices"
)

// Task names one thread as the caller's pid namespace shows it.
type Task struct {
	PID, TID int
	Name     string // comm, see proc(5): chosen by the task, quote it
	Why      string // in Report.Loose one of the Why constants, or what keeps it from stopping; else empty
}

// The values of Task.Why in Report.Loose, but for tasks that have not stopped in
// their time: of these it says what they are doing.
const (
	WhySelf     = "belongs to ipc-cr itself"
	WhyAncestor = "is an ancestor of ipc-cr"
	WhyExempt   = "is exempt"
	WhyTraced   = "is stopped under another tracer"
	WhyFrozen   = "is frozen by its cgroup"
	WhyVfork    = "is inside vfork for a stopped child"
)

// TaskError says which task could not be stopped, and why. It wraps the errno
// where there is one.
type TaskError struct {
	Task Task
	Err  error
}

func (e *TaskError) Error() string {
	return fmt.Sprintf("task %q (pid %d, tid %d): %v", e.Task.Name, e.Task.PID, e.Task.TID, e.Err)
}

// Unwrap returns Err.
func (e *TaskError) Unwrap() error { return e.Err }

func sortTasks(tasks []Task) {
	slices.SortFunc(tasks, func(a, b Task) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.TID, b.TID))
	})
}
