package freeze

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// TestFreezerKilled kills the program that stops at random moments: before,
// while and after it stops a namespace full of storms.
func TestFreezerKilled(t *testing.T) {
	ns := nstest.Fresh(t)
	busyOnes, forks, spawns := newCounters(t), newCounters(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, busyOnes.Path, "1", "30")
	nstest.Start(t, ns, forkProgram, forks.Path, "8", cloneFlags(0))
	nstest.Start(t, ns, spawnProgram, spawns.Path, "4")
	const kills = 50
	longest := 40 * time.Millisecond
	nstest.Try(t, func() error {
		held := 0
		for range kills {
			p := nstest.Start(t, nil, freezeProgram, fmt.Sprint(ns.Inode()))
			readLine(t, p)
			time.Sleep(rand.N(longest)) // not a wait for a state
			p.Kill()
			if line, err := p.Stdout.ReadString('\n'); err == nil && strings.HasPrefix(line, "held") {
				held++
			}
			mustBeFree(t, ns.Inode())
			for _, c := range []counters{busyOnes, forks, spawns} {
				c.waitMoved(t, 1)
			}
		}
		t.Logf("killed %d times within %v, %d of them when all were held", kills, longest, held)
		switch held {
		case 0:
			longest *= 2
			return errors.New("no kill came when all were held")
		case kills:
			longest /= 2
			return errors.New("no kill came before all were held")
		}
		return nil
	})
}

// TestAncestorsSpared runs the stopping program and its parent in the namespace.
func TestAncestorsSpared(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	p := nstest.Start(t, ns, nestedProgram, fmt.Sprint(ns.Inode()))
	readLine(t, p)
	said, report, _ := strings.Cut(readLine(t, p), " ")
	var r Report
	if err := json.Unmarshal([]byte(report), &r); said != "held" || err != nil {
		t.Fatalf("program said %s %s: %v", said, report, err)
	}
	c.mustRest(t)
	whys := map[string]int{}
	for _, task := range r.Loose {
		whys[task.Why]++
		if (task.Why == WhyAncestor) != (task.PID == p.PID()) {
			t.Errorf("%+v, but the parent is %d", task, p.PID())
		}
	}
	if whys[WhySelf] == 0 || whys[WhyAncestor] == 0 || len(whys) != 2 || r.Tasks == 0 {
		t.Errorf("report %+v", r)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	mustBeFree(t, ns.Inode())
}

func TestExempt(t *testing.T) {
	ns, c, free := nstest.Fresh(t), newCounters(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	p := nstest.Start(t, ns, busyProgram, free.Path, "1", "0")
	c.waitMoved(t, 1)
	free.waitMoved(t, 1)
	s := mustStop(t, ns, Options{Exempt: func(pid int) bool { return pid == p.PID() }})
	c.mustRest(t)
	free.waitMoved(t, 1)
	loose := s.Report().Loose
	if len(loose) == 0 {
		t.Error("nobody is loose")
	}
	for _, task := range loose {
		if task.PID != p.PID() || task.Why != WhyExempt {
			t.Errorf("loose: %+v, want exempt threads of %d alone", task, p.PID())
		}
	}
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
}

// TestKilledWhileHeld kills a process of many threads that is held and not our
// child: its parent must see the end of it before Release.
func TestKilledWhileHeld(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, parentProgram, c.Path)
	child := 0
	fmt.Sscan(readLine(t, p), &child)
	c.waitMoved(t, 1)
	s := mustStop(t, ns, Options{Exempt: func(pid int) bool { return pid == p.PID() }})
	mustKill(t, child, 9)
	if line := readLine(t, p); line != "signal: killed" {
		t.Errorf("the parent heard %q, want signal: killed", line)
	}
	if _, err := os.Stat(procPath(child, "")); !os.IsNotExist(err) {
		t.Errorf("process %d is there still: %v", child, err)
	}
	mustRelease(t, s)
}
