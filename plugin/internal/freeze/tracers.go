package freeze

import "time"

// maxTracers bounds the threads: Go ends a program that needs 10,000, and a
// cgroup may allow fewer still.
const maxTracers = 500

// tracers are one a process of the tasks that are stopped. While a process is in
// execve(2), PTRACE_SEIZE of any of its threads waits in the kernel, deaf to
// signals (cred_guard_mutex in ptrace_attach): for ever, if execve waits for a
// thread to be reaped by another tracer that does not. A thread that waits there
// lets go of nobody, so what it holds may only be of that process, and children
// that were born to it in the microsecond between its seizure and its stop.
// Beyond maxTracers processes have to share.
type tracers struct {
	all       []*tracer
	byProcess map[int]*tracer
	since     time.Time // when the first seizure began
}

// of returns the tracer of a process, which may not be ready yet.
func (s *tracers) of(pid int) *tracer {
	t := s.byProcess[pid]
	if t != nil {
		return t
	}
	if len(s.all) < maxTracers {
		t = startTracer()
		s.all = append(s.all, t)
	} else {
		t = s.all[len(s.byProcess)%maxTracers]
	}
	s.byProcess[pid] = t
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

// idle tells whether nobody is being seized.
func (s *tracers) idle() bool {
	for _, t := range s.all {
		if len(t.seizing) > 0 || len(t.next) > 0 {
			return false
		}
	}
	return true
}

// hung returns a task whose seizure takes longer than it may, nil if there is none.
func (s *tracers) hung(limit time.Duration) *member {
	for _, t := range s.all {
		if m := t.hung(limit); m != nil {
			return m
		}
	}
	return nil
}
