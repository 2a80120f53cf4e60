package freeze

import (
	"strconv"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// cloneFlags are for children that end with SIGCHLD.
func cloneFlags(flags int) string { return strconv.Itoa(flags | int(unix.SIGCHLD)) }

// TestStorms stops namespaces whose tasks come and go as fast as they can.
func TestStorms(t *testing.T) {
	storms := []struct {
		name, program string
		args          []string
	}{
		{"forks", forkProgram, []string{"64", cloneFlags(0)}},
		{"untraced forks", forkProgram, []string{"16", cloneFlags(unix.CLONE_UNTRACED)}},
		{"forks out of the namespace", forkProgram, []string{"8", cloneFlags(unix.CLONE_NEWIPC)}},
		{"a chain", chainProgram, []string{cloneFlags(0)}},
		{"an untraced chain", chainProgram, []string{cloneFlags(unix.CLONE_UNTRACED)}},
		{"threads", threadProgram, []string{"16"}},
		{"spawns", spawnProgram, []string{"16"}},
		{"exec in a thread", execProgram, nil},
	}
	for _, storm := range storms {
		t.Run(storm.name, func(t *testing.T) {
			ns, c := nstest.Fresh(t), newCounters(t)
			nstest.Start(t, ns, storm.program, append([]string{c.Path}, storm.args...)...)
			c.waitMoved(t, 100)
			deadline := time.Now().Add(2 * time.Minute)
			for stops := 0; stops < 20; {
				s := mustStop(t, ns, Options{})
				if !s.Report().Unseen { // beside other tests, that start processes too
					stops++
					mustHoldStorm(t, ns.Inode(), s)
					c.mustRest(t)
				}
				mustRelease(t, s)
				mustBeFree(t, ns.Inode())
				c.waitMoved(t, 10)
				if time.Now().After(deadline) {
					t.Fatalf("inconclusive: in %d of 20 stops nobody was born unseen", stops)
				}
			}
		})
	}
}

// mustHoldStorm fails if a task of the namespace can run, or one outside is
// held. Each task in a vfork that was under way is loose.
func mustHoldStorm(t *testing.T, inode uint64, s *Stopped) {
	t.Helper()
	loose := map[int]string{}
	for _, task := range s.Report().Loose {
		loose[task.TID] = task.Why
	}
	inside := tasksOf(t, inode)
	for _, task := range inside {
		if loose[task.tid] == WhyVfork && task.state == 'D' && s.traces(task.tracer) {
			continue
		}
		if task.state != 't' || !s.traces(task.tracer) {
			t.Errorf("pid %d tid %d is in state %c, traced by %d, loose %q", task.pid, task.tid, task.state, task.tracer, loose[task.tid])
		}
	}
	if n := s.Report().Tasks + len(loose); n != len(inside) {
		t.Errorf("%d tasks in the report, %d in the namespace", n, len(inside))
	}
	mustHoldNobodyOutside(t, inode, s)
	if t.Failed() {
		t.FailNow()
	}
}

// mustHoldNobodyOutside: children born into another namespace are seized too.
func mustHoldNobodyOutside(t *testing.T, inode uint64, s *Stopped) {
	t.Helper()
	for _, task := range tasksBut(t, inode) {
		if s.traces(task.tracer) {
			t.Errorf("pid %d tid %d, outside of the namespace, is held", task.pid, task.tid)
		}
	}
}
