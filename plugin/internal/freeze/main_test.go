package freeze

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// deadline bounds every wait for a state in these tests.
const deadline = 30 * time.Second

func TestMain(m *testing.M) {
	if path, again := os.LookupEnv(reexecEnv); again {
		reexec(path)
	}
	nstest.Main(m)
}

// counters are what the programs count in.
type counters struct{ nstest.Counters }

func newCounters(t testing.TB) counters { return counters{nstest.NewCounters(t)} }

func (c counters) sum() (n uint64) {
	for i := range c.Slot {
		n += c.Slot[i].Load()
	}
	return n
}

// waitMoved waits until the programs have counted on by n.
func (c counters) waitMoved(t testing.TB, n uint64) {
	t.Helper()
	start := c.sum()
	eventually(t, fmt.Sprintf("the counter goes on from %d", start), func() bool { return c.sum() >= start+n })
}

// mustRest fails if anything is counted in the next moment.
func (c counters) mustRest(t testing.TB) {
	t.Helper()
	start := c.sum()
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); runtime.Gosched() {
		if now := c.sum(); now != start {
			t.Fatalf("a stopped task counted from %d to %d", start, now)
		}
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", deadline, what)
		}
	}
}

// all stops the namespace's tasks until the end of the test at the latest.
func mustStop(t testing.TB, ns *nsenter.Namespace, opt Options) *Stopped {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	s, err := All(ctx, ns.Inode(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Release() })
	return s
}

func mustRelease(t testing.TB, s *Stopped) {
	t.Helper()
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
}

// seen is a task of a namespace as /proc shows it.
type seen struct {
	pid, tid int
	status
}

func tasksOf(t testing.TB, inode uint64) []seen { return listTasks(t, inode, true) }

// tasksBut returns the tasks of all other namespaces.
func tasksBut(t testing.TB, inode uint64) []seen { return listTasks(t, inode, false) }

func listTasks(t testing.TB, inode uint64, inside bool) (all []seen) {
	t.Helper()
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	link := fmt.Appendf(nil, "ipc:[%d]", inode)
	w := walk{proc: proc, found: func(pid, tid int, its []byte) error {
		if bytes.Equal(its, link) != inside {
			return nil
		}
		if st, ok := proc.status(tid); ok {
			all = append(all, seen{pid, tid, st})
		}
		return nil
	}}
	if err := w.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return all
}

// traces reports whether a thread is one that traces for s.
func (s *Stopped) traces(tid int) bool { return s.holder.tracers.byThread(tid) != nil }

// mustHoldAll fails unless every task of the namespace is in our stop.
func mustHoldAll(t testing.TB, ns *nsenter.Namespace, s *Stopped) {
	t.Helper()
	tasks := tasksOf(t, ns.Inode())
	for _, task := range tasks {
		if task.state != 't' || !s.traces(task.tracer) {
			t.Errorf("pid %d tid %d is in state %c, traced by %d; want t, traced by us",
				task.pid, task.tid, task.state, task.tracer)
		}
	}
	if n := s.Report().Tasks; n != len(tasks) {
		t.Errorf("report says %d tasks are held, the namespace has %d", n, len(tasks))
	}
}

// mustBeFree fails if a task of the namespace is still stopped or traced.
func mustBeFree(t testing.TB, inode uint64) {
	t.Helper()
	for _, task := range tasksOf(t, inode) {
		if task.state == 't' || task.state == 'T' || task.tracer != 0 {
			t.Errorf("pid %d tid %d is in state %c, traced by %d", task.pid, task.tid, task.state, task.tracer)
		}
	}
}

func readLine(t testing.TB, p *nstest.Process) string {
	t.Helper()
	line, err := p.Stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("read what the program says: %v", err)
	}
	return line[:len(line)-1]
}
