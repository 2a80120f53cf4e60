package freeze

// spare decides once a round whom to leave alone.
type spare struct {
	self      int
	ancestors map[int]bool
	exempt    func(pid int) bool
	asked     map[int]string // what was decided this round
}

// newSpare looks at the chain of parents anew: a parent that ends hands its
// children to another one. Ancestors outside our pid namespace are 0 here, and
// cannot be stopped from here either.
func newSpare(proc *procfs, self int, exempt func(pid int) bool) *spare {
	s := &spare{self: self, ancestors: map[int]bool{}, exempt: exempt, asked: map[int]string{}}
	for pid := self; ; {
		st, ok := proc.status(pid)
		if !ok || st.parent == 0 || s.ancestors[st.parent] {
			return s
		}
		pid = st.parent
		s.ancestors[pid] = true
	}
}

// why returns why a process is never stopped, "" if it is to be.
func (s *spare) why(pid int) string {
	why, ok := s.asked[pid]
	if !ok {
		why = s.decide(pid)
		s.asked[pid] = why
	}
	return why
}

func (s *spare) decide(pid int) string {
	switch {
	case pid == s.self:
		return WhySelf
	case s.ancestors[pid]:
		return WhyAncestor
	case s.exempt != nil && s.exempt(pid):
		return WhyExempt
	}
	return ""
}
