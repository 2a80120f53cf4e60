package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	statedir "github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// startTokens puts so many tokens into a namespace and starts a program that
// moves them.
func startTokens(t *testing.T, ns *nsenter.Namespace, tokens int, program string, args ...string) *nstest.Process {
	t.Helper()
	fill(t, ns, aQueue(tokenHere, 0x10, strings.Split(strings.Repeat("x", tokens), "")...), aQueue(tokenThere, 0x11))
	return startMoving(t, ns, program, args...)
}

func startMoving(t *testing.T, ns *nsenter.Namespace, program string, args ...string) *nstest.Process {
	t.Helper()
	p := nstest.Start(t, ns, program, args...)
	if _, err := p.Stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	waitMoved(t, ns)
	return p
}

// waitMoved waits until a message was received that was not before.
func waitMoved(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	stamp := func() (sum string) {
		for _, q := range stateStats(t, ns) {
			sum += fmt.Sprint(q.LRPID, q.RTime, q.LSPID, q.QNum, " ")
		}
		return sum
	}
	was := stamp()
	eventually(t, "messages move", func() bool { return stamp() != was })
}

// tokensOf counts the tokens of each type in an image.
func tokensOf(t *testing.T, dir string) map[int64]int {
	t.Helper()
	tokens := map[int64]int{}
	for _, q := range readImage(t, dir) {
		for _, m := range q.Messages {
			tokens[m.Type]++
		}
	}
	return tokens
}

// wantNobodyStopped wants every task of a namespace to run, untraced.
func wantNobodyStopped(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	for _, task := range tasksIn(t, ns) {
		if task.state == "t" || task.state == "T" || task.tracer != "0" {
			t.Errorf("task %s is in state %s, traced by %s", task.dir, task.state, task.tracer)
		}
	}
}

// somebodyStopped reports whether a task of a namespace is stopped.
func somebodyStopped(t *testing.T, ns *nsenter.Namespace) bool {
	return slices.ContainsFunc(tasksIn(t, ns), func(k task) bool { return k.state == "t" })
}

// task is a thread of a namespace as /proc shows it.
type task struct{ dir, state, tracer string }

func tasksIn(t testing.TB, ns *nsenter.Namespace) (tasks []task) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if link, err := os.Readlink(dir + "/ns/ipc"); err != nil || link != ns.Link() {
			continue
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue // it has ended
		}
		tasks = append(tasks, task{dir, statusField(status, "State"), statusField(status, "TracerPid")})
	}
	return tasks
}

func statusField(status []byte, name string) string {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Fields(value)[0]
		}
	}
	return ""
}

// Whoever is held is let go when the time is over, or a signal came, also if the copy
// sleeps in a system call and does not notice: on a file system that does not answer.
func TestFrozenIsLetGo(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	startTokens(t, ns, 1, threadsProgram, "2")
	ctx, cancel := context.WithCancel(t.Context())
	m := &meddler{copying: func(kernel.Kernel) error {
		cancel()
		waitMoved(t, ns)
		return nil
	}}
	_, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{Kinds: m.kinds(), Namespace: ns, Dir: dir, Number: 1, Freeze: true})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
	wantNobodyStopped(t, ns)
	wantNoCheckpoint(t, dir)
}

// frozenCopy copies into dir with all tasks stopped. Elsewhere on the machine
// processes may be born too fast to be looked at: then the copy has to be proved by a
// quiet second as well, and another one is made.
func frozenCopy(t *testing.T, ns *nsenter.Namespace, dir string) (report *plugin.CheckpointReport) {
	t.Helper()
	nstest.Try(t, func() (err error) {
		if report, err = tryFrozen(t, ns, dir); err != nil {
			t.Fatal(err)
		}
		if report.Frozen.Unseen {
			return errors.New("processes were born unseen")
		}
		return nil
	})
	return report
}

// Whoever moves the tokens, a copy of stopped tasks is accepted at once, shows
// no token twice, and everybody moves on.
func TestFrozen(t *testing.T) {
	nstest.Require(t, "userns")
	for _, c := range []struct {
		program string
		args    []string
		tokens  int
		tasks   int // at least
	}{
		{threadsProgram, []string{"1000"}, 10, 1000},
		{forkStormProgram, nil, 1, 1},
		{threadStormProgram, nil, 1, 2},
		{headlessProgram, nil, 1, 1},
	} {
		t.Run(c.program, func(t *testing.T) {
			ns, dir := nstest.Fresh(t), t.TempDir()
			startTokens(t, ns, c.tokens, c.program, c.args...)
			for range 5 {
				report := frozenCopy(t, ns, dir)
				if f := report.Frozen; f.Tasks < c.tasks || len(f.Loose) > 0 || report.Attempts != 1 {
					t.Errorf("attempts %d, frozen %+v, want %d tasks", report.Attempts, f, c.tasks)
				}
				for kind, n := range tokensOf(t, dir) {
					if n > 1 || kind > int64(c.tokens) {
						t.Errorf("%d tokens of type %d", n, kind)
					}
				}
				wantNobodyStopped(t, ns)
				waitMoved(t, ns)
			}
		})
	}
}

func TestHostIsNeverFrozen(t *testing.T) {
	host, dir := theHost(t), filepath.Join(t.TempDir(), "images")
	_, err := tryFrozen(t, host, dir)
	wantFailure(t, err, "the host's IPC namespace is never frozen", "without --freeze")
	wantNoCheckpoint(t, dir)
}

// Each of two that stop the tasks of one namespace at the same time is among
// these tasks itself.
func TestFreezeTwiceAtOnce(t *testing.T) {
	ns := nstest.Fresh(t)
	p := startTokens(t, ns, 1, tokenProgram, "0s")
	for range 8 {
		var both [2]*nstest.Process
		dirs := []string{t.TempDir(), t.TempDir()}
		for i, dir := range dirs {
			both[i] = operation{PID: p.PID(), Dir: dir, Freeze: true}.start(t)
			defer time.AfterFunc(30*time.Second, both[i].Kill).Stop()
		}
		for i, dir := range dirs {
			if err := resultOf(t, both[i]); err != nil {
				t.Fatal(err)
			}
			if found := tokensOf(t, dir)[1]; found > 1 {
				t.Errorf("the token is there %d times", found)
			}
		}
		wantNobodyStopped(t, ns)
	}
}

// A namespace that somebody else stops is left alone, and one that stops it is
// waited for only where somebody has to be stopped.
func TestFreezeLocked(t *testing.T) {
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(1, 0x10, "x"))
	same := t.TempDir()
	save(t, ns, same)
	dir, err := statedir.Default()
	if err != nil && !errors.Is(err, statedir.ErrNowhere) {
		t.Fatal(err)
	}
	lock, err := freeze.TakeLock(t.Context(), dir, ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	load(t, ns, same, plugin.Fail)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	holder := fmt.Sprintf("process %d (", os.Getpid())
	_, err = plugin.Checkpoint(ctx, plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1, Freeze: true})
	if wantFailure(t, err, holder); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("checkpoint: %v", err)
	}
	_, err = plugin.Restore(ctx, plugin.RestoreOptions{Kinds: kinds, Namespace: ns, Dir: saved(t, aQueue(2, 0x20)), Number: 1})
	if wantFailure(t, err, holder); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("restore: %v", err)
	}
	_, err = plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1, Freeze: true, Urgent: true})
	if wantFailure(t, err, holder); !errors.Is(err, freeze.ErrLocked) {
		t.Errorf("urgent checkpoint: %v", err)
	}
	save := plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1, Freeze: true, Urgent: true, Turn: true}
	if _, err := plugin.Checkpoint(t.Context(), save); err != nil {
		t.Errorf("with the turn: %v", err)
	}
}

// A tenant that locks its namespace's own file keeps nobody from stopping it.
func TestFreezeDespiteTenant(t *testing.T) {
	nstest.Require(t, "root") // for a state directory
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(1, 0x10, "x"))
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	dir := t.TempDir()
	if _, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true}); err != nil {
		t.Errorf("checkpoint: %v", err)
	}
	if _, err := plugin.Restore(ctx, plugin.RestoreOptions{Kinds: kinds, Namespace: ns, Dir: saved(t, aQueue(2, 0x20)), Number: 1}); err != nil {
		t.Errorf("restore: %v", err)
	}
}

// Where the time is over before all have stopped, the limit is the reason, and it is
// said how far it came.
func TestFrozenLimitWhileStopping(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	inhabit(t, ns)
	_, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1, Freeze: true}.WithFrozenLimit(1))
	wantFailure(t, err, "checkpoint "+ns.String()+": stop the tasks of "+ns.String()+": after ", ", in round 1 over /proc: tasks are frozen for 1ns at most")
	if strings.Contains(err.Error(), "context") {
		t.Errorf("%q is what Go programs say", err)
	}
}
