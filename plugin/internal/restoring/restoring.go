// Package restoring knows the CRIU processes with ipc-cr as their action script
// that restore at this moment, by what is kept of their actions in the state
// directory, and which tasks they are making.
//
// A task in the making runs CRIU's code and none of its program's. CRIU traces it,
// or is going to, and its restore fails if somebody else does.
package restoring

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The names of files that tell what an action of a CRIU process came to.
const answerPrefix = "hook-"

// The actions of a restore (criu/action-scripts.c) between which the objects are
// not restored yet.
const (
	firstAction = "pre-restore"
	turnAction  = "post-setup-namespaces"
)

// AnswerName is the name of the file that keeps the answer to an action of a CRIU
// process.
func AnswerName(criu state.Process, action string) string { return FileName(criu, "-"+action) }

// FileName is the name of a file that is kept for a CRIU process until it has ended.
// ParseAnswerName knows it, too.
func FileName(criu state.Process, suffix string) string {
	return fmt.Sprintf("%s%d-%d-%d%s", answerPrefix, criu.PIDNamespace, criu.PID, criu.Start, suffix)
}

// ParseAnswerName returns whose answer to which action a name is of.
func ParseAnswerName(name string) (criu state.Process, action string, ok bool) {
	rest, ours := strings.CutPrefix(name, answerPrefix)
	_, err := fmt.Sscanf(rest, "%d-%d-%d-%s", &criu.PIDNamespace, &criu.PID, &criu.Start, &action)
	return criu, action, ours && err == nil && AnswerName(criu, action) == name
}

// Run is a CRIU process that restores.
type Run struct {
	CRIU state.Process
	// Answered: it has had its turn at restoring objects, and its tasks may be
	// about to run. Before that it waits for its turn.
	Answered bool
}

// age is how long what was found counts as the present state: a stop of a
// thousand processes asks a thousand times within milliseconds.
const age = 5 * time.Millisecond

// Runs is all CRIU processes that restore. It is for one goroutine at a time. nil
// knows of none.
type Runs struct {
	dir    *state.Dir
	found  []Run
	looked time.Time
}

// In returns the runs that the state directory tells of, which must stay open. nil
// is none.
func In(dir *state.Dir) *Runs { return &Runs{dir: dir} }

// Any reports whether there is a run at all.
func (r *Runs) Any() bool { return r != nil && r.dir != nil && len(r.now()) > 0 }

func (r *Runs) now() []Run {
	if time.Since(r.looked) > age {
		r.found, r.looked = present(r.dir), time.Now()
	}
	return r.found
}

// Making returns the CRIU process that is making a task of the process, if one is.
func (r *Runs) Making(pid int) (run Run, making bool) {
	if !r.Any() {
		return run, false
	}
	above := lineage.Of(pid)
	if tracer := tracerOf(pid); tracer != 0 {
		above = append(above, tracer)
	}
	i := slices.IndexFunc(r.found, func(run Run) bool { return slices.Contains(above, run.CRIU.PID) })
	if i < 0 || pid == r.found[i].CRIU.PID {
		return run, false
	}
	return r.found[i], InTheMaking(pid, r.found[i].CRIU.PID, ProgramOf(r.found[i].CRIU.PID))
}

// present looks at the answers that are kept. One that cannot be read is as if
// it were not there.
func present(dir *state.Dir) (runs []Run) {
	names, err := dir.Names()
	if err != nil {
		return nil
	}
	for _, name := range names {
		criu, action, ok := ParseAnswerName(name)
		if ok && action == firstAction && !criu.Foreign() && criu.Alive() {
			runs = append(runs, Run{CRIU: criu, Answered: slices.Contains(names, AnswerName(criu, turnAction))})
		}
	}
	return runs
}

// Program is the file that a process executes, the zero Program if it could not be
// seen.
type Program struct{ dev, inode uint64 }

// ProgramOf returns the program of a process.
func ProgramOf(pid int) Program {
	var st unix.Stat_t
	if err := unix.Stat(procPath(pid, "exe"), &st); err != nil {
		return Program{}
	}
	return Program{uint64(st.Dev), st.Ino}
}

// InTheMaking reports whether a living process is CRIU's still: traced by it, or with
// its program. The program of the process that is being restored is given to it
// last of all (PR_SET_MM_MAP of prctl(2)).
func InTheMaking(pid, criu int, program Program) bool {
	return tracerOf(pid) == criu || program != Program{} && ProgramOf(pid) == program
}

// tracerOf reads field TracerPid of proc_pid_status(5); 0 for nobody.
func tracerOf(pid int) int {
	text, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nTracerPid:")
	line, _, _ := strings.Cut(rest, "\n")
	tracer, _ := strconv.Atoi(strings.TrimSpace(line))
	return tracer
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
