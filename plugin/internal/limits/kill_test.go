package limits

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// However the moment is chosen, the limits are soon as before, and what remains
// of the note the next Recover removes.
func TestKilledAtAnyMoment(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	ns := nstest.Fresh(t)
	b := newBenchOf(t, ns)
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	longest := 15 * time.Millisecond
	nstest.Try(t, func() error {
		caught := 0
		for range rounds {
			p := nstest.Start(t, nil, raiserProgram, path, b.state)
			if _, err := p.Stdout.ReadString('\n'); err != nil {
				p.Kill()
				t.Fatal(err)
			}
			time.Sleep(rand.N(longest)) // not a wait for a state
			p.Kill()
			if b.get(msgmax) != defaults[msgmax] || b.get(msgmnb) != defaults[msgmnb] {
				caught++
			}
			until(t, "the limits are as before", func() bool {
				return b.get(msgmax) == defaults[msgmax] && b.get(msgmnb) == defaults[msgmnb]
			})
			b.recover()
			b.want("recovered", nil)
			if left := b.notes(); len(left) != 0 {
				t.Fatalf("%v is left", left)
			}
		}
		t.Logf("in %d of %d rounds the guard was seen at work", caught, rounds)
		if caught == 0 {
			longest *= 2
			return errors.New("the guard was not seen at work")
		}
		return nil
	})
}

func newBenchOf(t *testing.T, ns *nsenter.Namespace) bench {
	b := newBench(t)
	b.Keeper = NewKeeper(ns, linux.NewSpace(ns, nil))
	return b
}

func (b bench) recover() {
	b.t.Helper()
	dir, err := state.Open(b.state)
	if err != nil {
		b.t.Fatal(err)
	}
	defer dir.Close()
	var last state.Recovery
	done := func() bool {
		names, err := dir.Names()
		if err != nil {
			b.t.Fatal(err)
		}
		last = guard.Recover(context.Background(), dir, names, guard.SettleTime)
		return len(last.Warnings) == 0
	}
	for end := time.Now().Add(deadline); !done(); {
		// On a busy machine a guard may take longer than SettleTime to begin.
		if text := strings.Join(last.Warnings, "; "); !strings.Contains(text, "is still there: not done yet") || time.Now().After(end) {
			b.t.Errorf("recover: %s", text)
			return
		}
	}
}

// In a user namespace there is no place for a note; the guard works all the same.
func TestKilledInAUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	p := nstest.StartInUserNS(t, nil, lonelyProgram)
	line, err := p.Stdout.ReadString('\n')
	if err != nil {
		p.Kill()
		t.Fatal(err)
	}
	noNote, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
	if noNote != "true" {
		t.Errorf("a note was made")
	}
	ns, err := nsenter.OpenPID(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	b := newBenchOf(t, ns)
	b.want("raised", values{msgmax: 20000})
	guardPID, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	guardProcess, err := state.Lookup(guardPID)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the guard has ended", func() bool { return !guardProcess.Alive() })
	b.want("put back", nil)
}
