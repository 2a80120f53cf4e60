package freeze

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/internal/mountinfo"
)

// freezer is the mount of the cgroup v1 freezer, see
// Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst. The zero value
// stands for a machine without one. Tasks frozen by cgroup v2 need no thought:
// they are in a stop that ptrace takes over.
type freezer struct {
	dir  string // where it is mounted
	root string // the cgroup that is seen there
}

// Names of the functions that a task sleeps in, as /proc/TID/wchan shows them:
// the freezer's own (kernel/freezer.c), and that of a job-stopped task
// (kernel/signal.c), which is frozen where it stands.
const (
	wchanFrozen  = "__refrigerator"
	wchanStopped = "do_signal_stop"
)

// findFreezer reads proc_pid_mountinfo(5): root and mount point are the fourth
// and fifth field, type and options the first and third after a lone "-".
func findFreezer() freezer {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return freezer{}
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, fs, _ := strings.Cut(lines.Text(), " - ")
		at, what := strings.Fields(mount), strings.Fields(fs)
		if len(at) < 5 || len(what) < 3 || what[0] != "cgroup" || !listed(what[2], "freezer") {
			continue
		}
		return freezer{dir: mountinfo.Unescape(at[4]), root: mountinfo.Unescape(at[3])}
	}
	return freezer{}
}

func listed(list, name string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if item == name {
			return true
		}
	}
	return false
}

// stateOf returns freezer.state of the cgroup that a task's cgroup file names:
// FROZEN also if it was an ancestor that was frozen, "" if it is not to be seen.
func (f freezer) stateOf(cgroupFile []byte) string {
	if f.dir == "" {
		return ""
	}
	for line := range bytes.Lines(cgroupFile) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 || !listed(fields[1], "freezer") {
			continue
		}
		below, err := filepath.Rel(f.root, fields[2])
		if err != nil || !filepath.IsLocal(below) {
			return ""
		}
		state, _ := os.ReadFile(filepath.Join(f.dir, below, "freezer.state"))
		return strings.TrimSpace(string(state))
	}
	return ""
}

// frozen reports whether a task in state D is frozen by its cgroup. Where it
// sleeps is its own word; the cgroup's FROZEN means that all of its tasks are.
func (h *holder) frozen(tid int) bool {
	if h.proc.text(tid, "wchan") == wchanFrozen {
		return true
	}
	return h.freezer.stateOf(h.proc.read(tid, "cgroup")) == "FROZEN"
}

// unseizable reports whether PTRACE_SEIZE would hang until the cgroup is thawed,
// not even to be interrupted: it wakes a job-stopped task and waits for it
// (JOBCTL_TRAPPING in ptrace_attach), and a frozen one does not wake. In state
// D a job-stopped task is always frozen.
func (h *holder) unseizable(tid int, state byte) bool {
	if state != 'D' {
		return false
	}
	switch h.proc.text(tid, "wchan") {
	case wchanStopped:
		return true
	case "", "0": // no kallsyms: rather leave all frozen ones alone
		return strings.HasPrefix(h.freezer.stateOf(h.proc.read(tid, "cgroup")), "FR")
	}
	return false
}
