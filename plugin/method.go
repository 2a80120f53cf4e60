package plugin

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/walk"
)

// Method is how messages are copied. The images are the same.
type Method string

const (
	// MethodAuto takes MethodBPF where MSG_COPY would spend more time on walking
	// along the queues than loading the program takes, and it is possible.
	MethodAuto Method = "auto"
	// MethodCopy is msgrcv(2) with MSG_COPY, which walks to each message from the
	// head of the queue: n²/2 steps for n messages.
	MethodCopy Method = "copy"
	// MethodBPF walks along each queue once, with a BPF program. It needs Linux 5.17
	// with BTF, CAP_BPF and CAP_PERFMON in the initial user namespace. What it gives
	// is checked; where it is not possible, or cannot be relied on, MSG_COPY does it.
	MethodBPF Method = "bpf"
)

// Methods are all of them, the default first.
var Methods = []Method{MethodAuto, MethodCopy, MethodBPF}

// What a checkpoint has to be worth.
const (
	// loading is about what loading the program takes when its types are kept.
	loading = 3 * time.Millisecond
	// worthWalking is what MSG_COPY may spend on one queue without being asked
	// again: about 60 messages.
	worthWalking = 50 * time.Microsecond
)

// copying chooses how the objects of a namespace are copied, as the copy goes.
type copying struct {
	method Method

	mu      sync.Mutex
	spent   time.Duration // walking that MSG_COPY was let do
	program *walk.Program
	tried   bool
	used    bool
	why     error // not, or not any more, the program
}

var errNotWorth = errors.New("too few messages for it to be worth its loading")

func newCopying(m Method) (*copying, error) {
	switch m {
	case "", MethodAuto:
		return &copying{method: MethodAuto, why: errNotWorth}, nil
	case MethodCopy, MethodBPF:
		return &copying{method: m}, nil
	}
	return nil, fmt.Errorf("method %q: want one of %q", m, Methods)
}

// open reports whether a namespace's numbers leave it open if the program is going to be
// used: among many queues there may be a long one.
func (c *copying) open(least, most time.Duration) bool {
	return c.method == MethodAuto && least <= loading && most > loading
}

// walkingSum is what walker is going to let MSG_COPY spend, before it is asked.
type walkingSum struct{ atomic.Int64 }

func (s *walkingSum) add(walking time.Duration) {
	if walking >= worthWalking {
		s.Add(int64(walking))
	}
}

func (s *walkingSum) total() time.Duration { return time.Duration(s.Load()) }

// prepare loads the program, before any task is stopped by us, if it is going to
// be used for sure.
func (c *copying) prepare(walking time.Duration) {
	if c.method == MethodBPF || c.method == MethodAuto && walking > loading {
		c.load()
	}
}

// walker implements kind.Target.Walker. What is let pass is added up: many queues
// that are not worth it are so together.
func (c *copying) walker(walking time.Duration) kernel.Walker {
	if c.method == MethodCopy || c.method == MethodAuto && walking < worthWalking {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spent += walking; c.program == nil && c.spent > loading {
		c.load()
	}
	if c.program == nil {
		return nil
	}
	c.used = true
	return c.program
}

// load loads the program, once.
func (c *copying) load() {
	if c.tried {
		return
	}
	c.tried = true
	dir, err := state.Default()
	if err == nil {
		defer dir.Close()
	}
	if c.program, c.why = walk.Open(dir); c.why != nil {
		c.program = nil
	}
}

// distrust goes back to MSG_COPY.
func (c *copying) distrust(err error) error {
	c.why, c.used = fmt.Errorf("the copy was thrown away: %w", err), false
	return c.close()
}

// chosen returns the method that was used, and why not the other.
func (c *copying) chosen() (m Method, why string) {
	if c.used {
		return MethodBPF, ""
	}
	if c.why != nil {
		why = c.why.Error()
	}
	return MethodCopy, why
}

// warnings say what was asked for and not done.
func (c *copying) warnings() []string {
	if c.method != MethodBPF || c.why == nil {
		return nil
	}
	return []string{fmt.Sprintf("copied with MSG_COPY, not with BPF: %v", c.why)}
}

func (c *copying) close() error {
	if c.program == nil {
		return nil
	}
	program := c.program
	c.program = nil
	return program.Close()
}
