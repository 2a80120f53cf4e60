package freeze

import "time"

// maxTracers bounds the threads: a program of Go's ends where a cgroup or a limit
// does not allow one more.
const maxTracers = 32

// tracers are one a process of several threads, and one for all other tasks that
// are stopped. While a process is in execve(2), PTRACE_SEIZE of any of its threads
// waits in the kernel, deaf to signals (cred_guard_mutex in ptrace_attach): for
// ever, if execve waits for a thread to be reaped by another tracer that does not.
// A thread that waits there lets go of nobody, so what it holds may only be of that
// process, and children that were born to it in the microsecond between its
// seizure and its stop.
//
// A process of one thread waits for nobody, unless a file system does not answer it
// (mayHang), and most have one: a thread for each would be many, that all want the
// processor from tasks that are not stopped yet. Beyond maxTracers processes have to
// share as well.
type tracers struct {
	all       []*tracer
	common    *tracer   // of the processes of one thread
	several   []*tracer // of those whose seizure may hang
	byProcess map[int]*tracer
	since     time.Time // when the first seizure began
}

// of returns the tracer of a process, which may not be ready yet.
func (s *tracers) of(pid int, mayHang bool) *tracer {
	if !mayHang && s.byProcess[pid] == nil {
		if s.common == nil {
			s.common = s.start()
		}
		return s.common
	}
	t := s.byProcess[pid]
	if t != nil {
		return t
	}
	if len(s.byProcess) < maxTracers {
		t = s.start()
		s.several = append(s.several, t)
	} else {
		t = s.several[len(s.byProcess)%len(s.several)]
	}
	s.byProcess[pid] = t
	return t
}

func (s *tracers) start() *tracer {
	t := startTracer()
	s.all = append(s.all, t)
	return t
}

// byThread returns the tracer with that tid, nil if it is none of ours.
func (s *tracers) byThread(tid int) *tracer {
	if tid == 0 {
		return nil
	}
	for _, t := range s.all {
		if t.isReady() && t.tid == tid {
			return t
		}
	}
	return nil
}

func (t *tracer) isReady() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// begin has all tracers seize who is next. That all threads are there first
// spares the stopped tasks the wait for them.
func (s *tracers) begin() {
	for _, t := range s.all {
		if len(t.next) > 0 {
			<-t.ready
		}
	}
	for _, t := range s.all {
		if len(t.next) == 0 || len(t.seizing) > 0 {
			continue
		}
		if s.since.IsZero() {
			s.since = time.Now()
		}
		t.begin()
	}
}

// finish hands each seizure that has ended to taken.
func (s *tracers) finish(taken func(*member, error) error) error {
	for _, t := range s.all {
		if len(t.seizing) == 0 || t.busy.Load() {
			continue
		}
		done := t.seizing
		t.seizing = nil
		for _, d := range done {
			if err := taken(d.member, d.err); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle reports whether nobody is being seized, but by tracers that are not waited
// for.
func (s *tracers) idle() bool {
	for _, t := range s.all {
		if t.given == "" && t.pending() {
			return false
		}
	}
	return true
}

// alone reports whether a tracer is of one process, so that nobody else is kept when
// its seizure hangs.
func (s *tracers) alone(t *tracer) bool {
	users := 0
	for _, by := range s.byProcess {
		if by == t {
			users++
		}
	}
	return t != s.common && users == 1
}
