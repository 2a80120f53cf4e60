package plugin_test

import (
	"context"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// consistencyEnv says how many accepted checkpoints of each pace are wanted.
const consistencyEnv = "IPC_CR_CONSISTENCY"

// wantedCopies is the number, and how long it may take to get there: on a machine that
// does nothing else a minute is enough for the usual ones.
func wantedCopies(t *testing.T, usual int) (int, time.Time) {
	t.Helper()
	text, set := os.LookupEnv(consistencyEnv)
	if !set {
		return usual, time.Now().Add(4 * time.Minute)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n, time.Now().Add(time.Hour)
}

// Whatever the namespace does, an accepted copy is a state that it had. Where it
// is in use in every second, next to none is accepted: only one during which
// the kernel let none of its threads run. Where it rests for a second, some are. How
// many it takes to prove anything is the table's matter: it goes on until there are.
func TestConsistent(t *testing.T) {
	nstest.Require(t, "userns")
	consistent(t, plugin.MethodCopy)
}

// A walk takes no lock: what it gives of a queue that is in use is not accepted.
func TestConsistentWalks(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	consistent(t, plugin.MethodBPF)
}

func consistent(t *testing.T, method plugin.Method) {
	for _, c := range []struct {
		pace     string
		accepted int // that must be got; 0: two must be refused
	}{
		{"0s", 0},
		{"2ms", 0},
		{"100ms", 4},
		{"bursts", 60},
		{"edges", 60},
	} {
		t.Run(c.pace, func(t *testing.T) {
			t.Parallel()
			collect := collector{ns: nstest.Fresh(t), dir: t.TempDir(), method: method}
			startMovers(t, collect.ns, c.pace)
			if c.accepted == 0 {
				collect.until(t, time.Now().Add(4*time.Minute), func() bool { return collect.refused >= 2 })
				return
			}
			wanted, deadline := wantedCopies(t, c.accepted)
			collect.until(t, deadline, func() bool { return collect.accepted >= wanted })
		})
	}
}

// collector makes checkpoints and checks those that are accepted.
type collector struct {
	ns                *nsenter.Namespace
	dir               string
	method            plugin.Method
	accepted, refused int
}

func (c *collector) until(t *testing.T, deadline time.Time, enough func() bool) {
	t.Helper()
	for !enough() {
		if time.Now().After(deadline) {
			t.Fatalf("inconclusive: %d accepted, %d refused", c.accepted, c.refused)
		}
		c.once(t)
	}
	t.Logf("%d accepted, %d refused", c.accepted, c.refused)
}

func (c *collector) once(t *testing.T) {
	t.Helper()
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: kinds, Namespace: c.ns, Dir: c.dir, Number: 1, Force: true, Method: c.method,
	})
	if err == nil && (report.Method != c.method || len(report.Warnings) > 0) {
		t.Errorf("copied with %q, %q", report.Method, report.Warnings)
	}
	if err != nil {
		c.refused++
		wantFailure(t, err, "queue ", "(key 0x", kind.ErrChanged.Error(), "5 times", "--freeze")
		return
	}
	c.accepted++
	if wrong := checkMoved(readImage(t, c.dir)); wrong != "" {
		t.Fatalf("accepted copy number %d is wrong: %s", c.accepted, wrong)
	}
}

// With all tasks stopped, every copy is accepted.
func TestConsistentFrozen(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	startMovers(t, ns, "0s")
	wanted, _ := wantedCopies(t, 30)
	for i := range wanted {
		report := frozenCopy(t, ns, dir)
		if report.Attempts != 1 || report.Frozen == nil || report.Frozen.Tasks < 2 || len(report.Frozen.Loose) > 0 {
			t.Errorf("attempts %d, frozen %+v", report.Attempts, report.Frozen)
		}
		if wrong := checkMoved(readImage(t, dir)); wrong != "" {
			t.Fatalf("copy number %d is wrong: %s", i, wrong)
		}
	}
}

// waiter is a kind without objects, and a context that counts how often somebody
// waits for its end as well, from when the namespace is looked at first.
type waiter struct {
	meddler
	context.Context
	waits atomic.Int32
}

func (w *waiter) Walking(kernel.Kernel, time.Duration) (least, most time.Duration, err error) {
	w.waits.Store(0)
	return 0, 0, nil
}

func (w *waiter) Done() <-chan struct{} {
	w.waits.Add(1)
	return w.Context.Done()
}

// An idle namespace never waits for the next second, one that is in use does.
func TestIdleNeverWaits(t *testing.T) {
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(4, 0x44, "a"))
	save(t, ns, t.TempDir()) // now its times are of another second
	for _, c := range []struct {
		does     func(kernel.Kernel) error
		attempts int
		waits    bool
	}{
		{nil, 1, false},
		{func(k kernel.Kernel) error { return k.Send(4, msgbuf(message{1, "b"})) }, 2, true},
	} {
		w := &waiter{meddler: meddler{copying: c.does}, Context: t.Context()}
		report, err := plugin.Checkpoint(w, plugin.CheckpointOptions{
			Kinds: []plugin.Kind{msgq.Kind{}, w, ipcvar.Kind{}}, Namespace: ns, Dir: t.TempDir(), Number: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if waits := w.waits.Load(); report.Attempts != c.attempts || (waits > 0) != c.waits {
			t.Errorf("%d attempts, waited %d times, want %d attempts, %t", report.Attempts, waits, c.attempts, c.waits)
		}
	}
}

// What is checked above can fail.
func TestCheckMoved(t *testing.T) {
	stream := func(hop int, numbers ...uint64) queue {
		q := aQueue(int32(streamFirst+hop), 1)
		for _, n := range numbers {
			q.Messages = append(q.Messages, message{1, string(numbered(n)[8:])})
		}
		return q
	}
	for _, c := range []struct {
		right  bool
		queues []queue
	}{
		{true, nil},
		{true, []queue{aQueue(tokenHere, 1, "token"), aQueue(tokenThere, 2)}},
		{false, []queue{aQueue(tokenHere, 1, "token"), aQueue(tokenThere, 2, "token")}},
		{true, []queue{stream(2, 3, 4), stream(1, 6, 7), stream(0, 9, 10)}},
		{true, []queue{stream(2, 3, 4), stream(0, 7)}},
		{false, []queue{stream(2, 3, 4), stream(0, 8)}},
		{false, []queue{stream(2, 3, 4), stream(1, 4)}},
		{false, []queue{stream(2, 3, 4), stream(1, 7)}},
		{false, []queue{stream(1, 3, 5)}},
	} {
		if wrong := checkMoved(c.queues); (wrong == "") != c.right {
			t.Errorf("%v: %q", c.queues, wrong)
		}
	}
}
