// Package memkernel is the kernel interface of package kernel in memory: System
// V message queues and sysctls of one IPC namespace, with failures on demand.
//
// It is for tests only, of what a real kernel cannot be made to do: a call that
// fails in the middle, another task that takes an id in the one moment where
// that hurts. It follows ipc/msg.c and ipc/util.c, and passes the contract
// suite of package kerneltest, so that what is tested against it holds for
// Linux. Its caller has every capability but CAP_SYS_RESOURCE; permissions are
// not checked.
package memkernel

import (
	"math"
	"os"
	"sync"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// Space is an IPC namespace in memory.
type Space struct {
	// Fail, if not nil, is asked before each call made through Run: with the name
	// of the method, and the number of the call in this Space, from 1. An error
	// becomes the call's, which then does nothing. It is asked once at a time, and
	// may itself change the namespace through a Task: that is how somebody else
	// comes in between.
	Fail func(call string, n int) error

	asking sync.Mutex
	calls  int

	mu        sync.Mutex
	other     kernel.Counts
	queues    map[int]*queue // by index
	sysctls   map[string][]int64
	cursor    int // where the search for a natural index begins
	lastIndex int
	seq       int32
}

var _ kernel.Space = (*Space)(nil)

// New makes an empty namespace with the sysctls of a fresh one.
func New() *Space {
	return &Space{queues: map[int]*queue{}, sysctls: defaults(), lastIndex: -1}
}

// Run implements kernel.Space.
func (s *Space) Run(fn func(kernel.Kernel) error) error {
	return fn(&Task{space: s, pid: int32(os.Getpid()), asks: true})
}

// Calls returns how many calls were made through Run.
func (s *Space) Calls() int {
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.calls
}

// Contain puts objects of other kinds into the namespace.
func (s *Space) Contain(other kernel.Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.other = other
}

// Have gives a sysctl values that no program could write, or takes it away
// where there are none.
func (s *Space) Have(name string, values ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(values) == 0 {
		delete(s.sysctls, name)
		return
	}
	s.sysctls[name] = values
}

// Task is a task in the namespace. Its calls are not counted and do not fail on
// demand.
type Task struct {
	space *Space
	pid   int32
	asks  bool // it is the one under test
}

var _ kernel.Kernel = (*Task)(nil)

// Task makes a neighbour of the task under test.
func (s *Space) Task(pid int32) *Task { return &Task{space: s, pid: pid} }

// enter begins a call. Without an error it holds the namespace's lock.
func (t *Task) enter(call string) error {
	if t.asks {
		if err := t.space.ask(call); err != nil {
			return err
		}
	}
	t.space.mu.Lock()
	return nil
}

func (s *Space) ask(call string) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.calls++
	if s.Fail == nil {
		return nil
	}
	return s.Fail(call, s.calls)
}

// IndexBits implements kernel.Kernel. It cannot fail.
func (t *Task) IndexBits() int { return indexBits }

// MayRestore implements kernel.Kernel: everything is allowed, but for the id
// that is nobody's.
func (t *Task) MayRestore(creators []kernel.Creator) error {
	if err := t.enter("MayRestore"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	for _, c := range creators {
		if err := somebody(c.UID, c.GID); err != nil {
			return err
		}
	}
	return nil
}

// MaySetNextID implements kernel.Kernel: it is allowed.
func (t *Task) MaySetNextID() error {
	if err := t.enter("MaySetNextID"); err != nil {
		return err
	}
	t.space.mu.Unlock()
	return nil
}

// MayRemove implements kernel.Kernel: everything is allowed.
func (t *Task) MayRemove(*kernel.Queue) error {
	if err := t.enter("MayRemove"); err != nil {
		return err
	}
	t.space.mu.Unlock()
	return nil
}

// OtherKinds implements kernel.Kernel.
func (t *Task) OtherKinds() (kernel.Counts, error) {
	if err := t.enter("OtherKinds"); err != nil {
		return kernel.Counts{}, err
	}
	defer t.space.mu.Unlock()
	return t.space.other, nil
}

// POSIXQueues implements kernel.Kernel: there are none.
func (t *Task) POSIXQueues() (int, error) {
	if err := t.enter("POSIXQueues"); err != nil {
		return 0, err
	}
	t.space.mu.Unlock()
	return 0, nil
}

func somebody(ids ...uint32) error {
	for _, id := range ids {
		if id == math.MaxUint32 {
			return errInvalid
		}
	}
	return nil
}
