package freeze

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// StoppedBy reports whether a process lives and can do nothing before one of these
// processes lets it: each of its threads is stopped, and traced by one of them. The
// pids are as /proc shows them to the caller. It needs no privilege where /proc
// hides nobody (hidepid of proc(5)).
func StoppedBy(pid int, tracers ...int) (bool, error) {
	proc, err := openProc()
	if err != nil {
		return false, err
	}
	defer proc.close()
	return proc.stoppedBy(pid, tracers), nil
}

// errRuns ends a listing.
var errRuns = errors.New("it may run")

func (p *procfs) stoppedBy(pid int, tracers []int) bool {
	fd, err := p.openTask(pid, "task")
	if err != nil {
		return false // it has ended
	}
	defer unix.Close(fd)
	threads, stopped, listed := p.threads(pid), 0, 0
	err = eachNumber(fd, p.tids, func(tid int) error {
		listed++
		switch s, there := p.status(tid); {
		case !there || s.dead():
		case s.state != 't' && s.state != 'T', s.tracer == 0, !slices.Contains(tracers, p.process(s.tracer)): // any thread of theirs
			return errRuns
		default:
			stopped++
		}
		return nil
	})
	return err == nil && stopped > 0 && listed >= threads
}
