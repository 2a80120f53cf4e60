package plugin_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// A parent in vfork for a stopped child cannot run, but is not held: the quiet
// second has to prove the copy as well. That takes a second attempt if the token has
// moved in the second of the first.
func TestFrozenVfork(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	startTokens(t, ns, 1, vforkProgram)
	nstest.Try(t, func() error {
		waitMoved(t, ns)
		report, err := tryFrozen(t, ns, dir)
		if err != nil {
			t.Fatal(err)
		}
		if loose := fmt.Sprint(report.Frozen.Loose); len(report.Frozen.Loose) != 1 || !strings.Contains(loose, "vfork") || report.Attempts > 2 {
			t.Errorf("attempts %d, loose %s, want 2 and the parent", report.Attempts, loose)
		}
		if n := tokensOf(t, dir)[1]; n > 1 {
			t.Errorf("%d tokens", n)
		}
		wantNobodyStopped(t, ns)
		waitMoved(t, ns)
		if report.Attempts < 2 {
			return errors.New("the token last moved in another second than that of the copy")
		}
		return nil
	})
}

// startUnderDebugger starts a program that moves a token on one thread, which another
// program traces, and returns that one and the thread.
func startUnderDebugger(t *testing.T, ns *nsenter.Namespace, how string) (tracer *nstest.Process, mover string) {
	t.Helper()
	// The thread takes no signal for the runtime's sake: its tracer would not let it
	// go on from there.
	t.Setenv("GODEBUG", "asyncpreemptoff=1")
	fill(t, ns, aQueue(tokenHere, 0x10, "x"), aQueue(tokenThere, 0x11))
	mover, err := nstest.Start(t, ns, singleProgram).Stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	waitMoved(t, ns)
	mover = strings.TrimSpace(mover)
	tracer = nstest.Start(t, nil, traceProgram, mover, how)
	if _, err := tracer.Stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return tracer, mover
}

// A task under a debugger is not ours to stop: one that runs there goes on moving the
// token, and no copy is accepted.
func TestFrozenUnderDebugger(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), filepath.Join(t.TempDir(), "images")
	tracer, mover := startUnderDebugger(t, ns, "run")
	nstest.Try(t, func() error {
		_, err := tryFrozen(t, ns, dir)
		if err == nil {
			return errors.New("the thread did not come to run in a whole second")
		}
		wantFailure(t, err, "queue ", "tid "+mover+")")
		return nil
	})
	if err := tracer.Stop(); err != nil {
		t.Error(err)
	}
	waitMoved(t, ns)
	wantNobodyStopped(t, ns)
}

// One that is stopped there counts as stopped, if the second is quiet.
func TestFrozenStoppedByDebugger(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), filepath.Join(t.TempDir(), "images")
	tracer, mover := startUnderDebugger(t, ns, "stop")
	report, err := tryFrozen(t, ns, dir)
	if err != nil {
		t.Fatal(err)
	}
	if loose := fmt.Sprint(report.Frozen.Loose); !strings.Contains(loose, "tid "+mover+")") || report.Attempts > 2 {
		t.Errorf("attempts %d, loose %s, want 2 at most, and %s", report.Attempts, loose, mover)
	}
	if n := tokensOf(t, dir)[1]; n > 1 {
		t.Errorf("%d tokens", n)
	}
	if err := tracer.Stop(); err != nil {
		t.Error(err)
	}
	waitMoved(t, ns)
	wantNobodyStopped(t, ns)
}

// A task chooses its name, and whoever reads the report has a terminal.
func TestLooseNamesAreQuoted(t *testing.T) {
	ns := nstest.Fresh(t)
	p := nstest.Start(t, ns, rudeProgram)
	if _, err := p.Stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1,
		Freeze: true, Exempt: func(pid int) bool { return pid == p.PID() },
	})
	if err != nil {
		t.Fatal(err)
	}
	loose := strings.Join(report.Frozen.Loose, ", ")
	if !strings.Contains(loose, fmt.Sprintf(`task "\x1b[2J\n" (pid %d, tid `, p.PID())) || strings.ContainsAny(loose, "\x1b\n") {
		t.Errorf("loose: %q, want the thread's name in quotes", loose)
	}
}
