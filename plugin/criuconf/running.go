package criuconf

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/criuproc"
)

// ErrRunning says that a criu runs that may still call the script: its next action
// would fail if that were gone, and with it somebody's dump or restore.
var ErrRunning = errors.New("a criu that runs may still call it")

// Running is a criu process that was waited for.
type Running struct {
	PID     int    `json:"pid"`
	Command string `json:"command"` // its command line, of at most 200 bytes; it can say anything
	Ended   bool   `json:"ended"`
}

func (r Running) String() string { return fmt.Sprintf("criu, process %d (%q)", r.PID, r.Command) }

// awaitCRIU waits for the criu processes that run now. Those that start later read
// files without the lines, and find nothing in front of them.
func (j *job) awaitCRIU(ctx context.Context, o Options) error {
	watch, err := j.findCRIU()
	if err != nil || len(j.report.Running) == 0 {
		return err
	}
	var waited error
	if o.Wait > 0 {
		if o.Waiting != nil {
			o.Waiting(j.report.Running)
		}
		bounded, cancel := context.WithTimeoutCause(ctx, o.Wait, errWaited)
		defer cancel()
		if waited = watch.Wait(bounded); waited == nil {
			j.markEnded(nil)
			return nil
		}
	}
	left := watch.Left()
	j.markEnded(left)
	if len(left) == 0 {
		return nil
	}
	return j.stillRunning(left, o.Wait, waited)
}

// errWaited ends a wait that was as long as it was to be.
var errWaited = errors.New("waited in vain")

// stillRunning is the error for processes that were left when the wait was over.
// waited is why it was, nil if there was none.
func (j *job) stillRunning(left []criuproc.Process, wait time.Duration, waited error) error {
	err := ErrRunning
	switch {
	case errors.Is(waited, errWaited):
		err = fmt.Errorf("%w after %v", ErrRunning, wait)
	case waited != nil:
		err = fmt.Errorf("%w, and the wait for its end was given up (%w)", ErrRunning, waited)
	}
	ended := "it has"
	if len(left) > 1 {
		ended = "they have"
	}
	return fmt.Errorf("remove %s: %w: %s: nothing names it any more, and the link stays: run ipc-cr uninstall again when %s ended",
		j.report.Script, err, list(left), ended)
}

// findCRIU looks for them, and reports them.
func (j *job) findCRIU() (*criuproc.Watch, error) {
	if !j.root.host { // of another machine
		return nil, nil
	}
	watch, err := criuproc.Find(criuproc.Script{Path: j.report.Script, Binary: j.binary})
	if err != nil {
		return nil, fmt.Errorf("remove %s: look for running criu processes: %w", j.report.Script, err)
	}
	for _, p := range watch.Left() {
		j.report.Running = append(j.report.Running, running(p))
	}
	for _, pid := range watch.Unseen() {
		j.note("process %d does not let itself be looked at: if it is a criu, it is not waited for", pid)
	}
	return watch, nil
}

func running(p criuproc.Process) Running { return Running{PID: p.PID, Command: p.Command} }

// markEnded notes which have ended. What those have forked meanwhile, and is left,
// is reported as well.
func (j *job) markEnded(left []criuproc.Process) {
	is := map[int]bool{}
	for _, p := range left {
		is[p.PID] = true
	}
	for i := range j.report.Running {
		r := &j.report.Running[i]
		r.Ended = !is[r.PID]
		delete(is, r.PID)
	}
	for _, p := range left {
		if is[p.PID] {
			j.report.Running = append(j.report.Running, running(p))
		}
	}
}

// mostNamed is how many processes an error names.
const mostNamed = 3

func list(left []criuproc.Process) string {
	var names []string
	for _, p := range left[:min(len(left), mostNamed)] {
		names = append(names, running(p).String())
	}
	if more := len(left) - mostNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
