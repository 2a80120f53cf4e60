package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// mustGiveUp stops the namespace but for one task, lets it go, and returns that
// task and how long the others stood still.
func mustGiveUp(t *testing.T, ns *nsenter.Namespace, opt Options) (Task, time.Duration) {
	t.Helper()
	s := mustStop(t, ns, opt)
	r := s.Report()
	mustRelease(t, s)
	if len(r.Loose) != 1 {
		t.Fatalf("report %+v, want one task that is not held", r)
	}
	return r.Loose[0], time.Since(r.Since)
}

func looseBy(r Report, why string) (tasks []Task) {
	for _, task := range r.Loose {
		if strings.HasPrefix(task.Why, why) {
			tasks = append(tasks, task)
		}
	}
	return tasks
}

func TestStoppedUnderTracer(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, forkProgram, c.Path, "1", cloneFlags(0))
	c.waitMoved(t, 1)
	loop := forkLoopOf(t, ns, p.PID())
	tracer := nstest.Start(t, nil, traceProgram, fmt.Sprint(loop), "stop")
	readLine(t, tracer)
	s := mustStop(t, ns, Options{})
	if loose := looseBy(s.Report(), WhyTraced); len(loose) != 1 || loose[0].TID != loop {
		t.Errorf("loose: %+v, want tid %d", loose, loop)
	}
	c.mustRest(t)
	mustRelease(t, s)
	if err := tracer.Stop(); err != nil {
		t.Error(err)
	}
	c.waitMoved(t, 1)
}

// forkLoopOf returns the process that forks, the program's only lasting child.
func forkLoopOf(t *testing.T, ns *nsenter.Namespace, program int) (pid int) {
	t.Helper()
	for _, task := range tasksOf(t, ns.Inode()) {
		if task.parent == program {
			return task.pid
		}
	}
	t.Fatalf("no child of %d", program)
	return 0
}

func TestRunsUnderTracer(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, forkProgram, c.Path, "1", "0") // takes no signals, for which it would stop
	c.waitMoved(t, 1)
	loop := forkLoopOf(t, ns, p.PID())
	tracer := nstest.Start(t, nil, traceProgram, fmt.Sprint(loop), "run")
	readLine(t, tracer)
	s := mustStop(t, ns, Options{})
	r := s.Report()
	loose := looseBy(r, "runs, and is traced by ")
	if want := fmt.Sprintf("(pid %d)", tracer.PID()); len(loose) != 1 || loose[0].TID != loop || !strings.HasSuffix(loose[0].Why, want) {
		t.Errorf("report %+v, want that tid %d runs under %q", r, loop, want)
	}
	mustRelease(t, s)
	c.waitMoved(t, 1)
	nstest.Try(t, func() error { // nobody is held for long because of it
		s := mustStop(t, ns, Options{})
		stood := time.Since(s.Report().Since)
		mustRelease(t, s)
		if stood > 2*time.Second {
			return fmt.Errorf("the others stood still for %v", stood)
		}
		return nil
	})
	if err := tracer.Stop(); err != nil {
		t.Error(err)
	}
	mustBeFree(t, ns.Inode())
}

// A task chooses its name, and whoever reads the message has a terminal.
func TestNamesAreQuoted(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, rudeProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	loop := forkLoopOf(t, ns, p.PID())
	tracer := nstest.Start(t, nil, rudeTraceProgram, fmt.Sprint(loop), "run")
	readLine(t, tracer)
	want := fmt.Sprintf(`runs, and is traced by "\x1b[2J\n" (pid %d)`, tracer.PID())
	s := mustStop(t, ns, Options{})
	if loose := looseBy(s.Report(), "runs"); len(loose) != 1 || loose[0].Why != want {
		t.Errorf("%+v, want %q", loose, want)
	}
	mustRelease(t, s)
	if err := tracer.Stop(); err != nil {
		t.Error(err)
	}
}

// lease is a program whose execution waits for as long as the test has it under
// a lease (fcntl(2), F_SETLEASE): opening it waits for the holder.
type lease struct{ *os.File }

func newLease(t *testing.T) lease {
	t.Helper()
	path := filepath.Join(t.TempDir(), "leased")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	return lease{f}
}

// waitOpened waits until somebody executes the program: its parent is in vfork
// then. The kernel shows the holder what the lease is to become.
func (l lease) waitOpened(t *testing.T) {
	t.Helper()
	eventually(t, "somebody opens the leased program", func() bool {
		kind, err := unix.FcntlInt(l.Fd(), unix.F_GETLEASE, 0)
		if err != nil {
			t.Fatal(err)
		}
		return kind != unix.F_WRLCK
	})
}

func TestVforkOfStoppedChild(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	l := newLease(t)
	p := nstest.Start(t, ns, vforkProgram, c.Path, l.Name(), "0")
	l.waitOpened(t)
	s := mustStop(t, ns, Options{})
	if loose := looseBy(s.Report(), WhyVfork); len(loose) != 1 || loose[0].PID != p.PID() {
		t.Errorf("loose: %+v, want one thread of %d", loose, p.PID())
	}
	c.mustRest(t)
	l.Close()
	mustRelease(t, s)
	if line := readLine(t, p); line != "started" {
		t.Errorf("the parent said %q", line)
	}
	mustBeFree(t, ns.Inode())
}

// TestVforkOfRunningChild has the child in another namespace, where it is not
// ours to stop.
func TestVforkOfRunningChild(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	l := newLease(t)
	p := nstest.Start(t, ns, vforkProgram, c.Path, l.Name(), fmt.Sprint(unix.CLONE_NEWIPC))
	l.waitOpened(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := All(ctx, ns.Inode(), Options{Timeout: deadline}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want %v", err, context.DeadlineExceeded)
	}
	c.waitMoved(t, 1)
	task, _ := mustGiveUp(t, ns, Options{Timeout: 200 * time.Millisecond})
	if task.PID != p.PID() || task.Why != "is inside vfork for a child that is not stopped" {
		t.Errorf("%+v, want a thread of %d inside vfork", task, p.PID())
	}
	l.Close()
	if line := readLine(t, p); line != "started" {
		t.Errorf("the parent said %q", line)
	}
	mustBeFree(t, ns.Inode())
	c.waitMoved(t, 1)
}

// Who says nothing of a time has the 2 s that are promised.
func TestUsualTimeout(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	l := newLease(t)
	p := nstest.Start(t, ns, vforkProgram, c.Path, l.Name(), fmt.Sprint(unix.CLONE_NEWIPC))
	l.waitOpened(t)
	nstest.Try(t, func() error {
		task, stood := mustGiveUp(t, ns, Options{})
		if task.PID != p.PID() || stood < 2*time.Second {
			t.Errorf("%+v after %v, want a thread of %d after 2s", task, stood, p.PID())
		}
		if stood > 4*time.Second {
			return fmt.Errorf("it was given up after %v, want 2s", stood)
		}
		return nil
	})
	l.Close()
	if line := readLine(t, p); line != "started" {
		t.Errorf("the parent said %q", line)
	}
}

// TestTwoStops has the namespace's tasks held by another stop already.
func TestTwoStops(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	c.waitMoved(t, 1)
	other := nstest.Start(t, nil, freezeProgram, fmt.Sprint(ns.Inode()))
	readLine(t, other)
	readLine(t, other)
	s := mustStop(t, ns, Options{})
	if r := s.Report(); r.Tasks != 0 || len(looseBy(r, WhyTraced)) != len(tasksOf(t, ns.Inode())) {
		t.Errorf("report %+v: want all tasks loose under the other tracer", r)
	}
	mustRelease(t, s)
	c.mustRest(t)
	if err := other.Stop(); err != nil {
		t.Error(err)
	}
	mustBeFree(t, ns.Inode())
	c.waitMoved(t, 1)
}

// TestStopsWaitedFor has another goroutine wait for the stopped child, which
// takes the report of its stop away.
func TestStopsWaitedFor(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	c.waitMoved(t, 1)
	ended, taken := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(taken)
		for {
			select {
			case <-ended:
				return
			default:
				unix.Wait4(p.PID(), nil, unix.WNOHANG|unix.WALL, nil)
			}
		}
	}()
	for range 20 {
		s := mustStop(t, ns, Options{})
		mustHoldAll(t, ns, s)
		c.mustRest(t)
		mustRelease(t, s)
		mustBeFree(t, ns.Inode())
		c.waitMoved(t, 1)
	}
	close(ended)
	<-taken
}
