package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

var execveProgram = nstest.Program("freeze.execve", execve)

// execve says the tid of a thread that only waits, and when it is told to it
// executes a shell, which says so and waits for the end of stdin. It is not the
// first thread, whose id execve(2) takes over without a wait for its tracer.
func execve([]string) {
	tids := make(chan int)
	for range 2 {
		go onThread(func() {
			tids <- unix.Gettid()
			for {
				nap(1e9)
			}
		})
	}
	tid := <-tids
	if other := <-tids; tid == os.Getpid() {
		tid = other
	}
	fmt.Println(tid)
	os.Stdin.Read(make([]byte, 1))
	panic(unix.Exec("/bin/sh", []string{"sh", "-c", "echo executed; exec cat"}, os.Environ()))
}

// hungExecve is a process whose execve(2) waits for one of its threads to be
// reaped by another program, which does not.
type hungExecve struct{ process, tracer *nstest.Process }

func startHungExecve(t *testing.T, ns *nsenter.Namespace) hungExecve {
	t.Helper()
	p := nstest.Start(t, ns, execveProgram)
	thread := 0
	fmt.Sscan(readLine(t, p), &thread)
	tracer := nstest.Start(t, nil, traceProgram, fmt.Sprint(thread), "run")
	readLine(t, tracer)
	if _, err := p.Stdin.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the traced thread has ended and is not reaped", func() bool {
		stat, err := os.ReadFile(procPath(thread, ofThread(thread, "stat")))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	return hungExecve{p, tracer}
}

// goOn has the tracer let go, and the process come out of its execve.
func (h hungExecve) goOn(t *testing.T) {
	t.Helper()
	if err := h.tracer.Stop(); err != nil {
		t.Error(err)
	}
	if line := readLine(t, h.process); line != "executed" {
		t.Errorf("the process said %q, want that it executed", line)
	}
}

// mustEndTracers waits until no thread of ours traces anybody of the namespace.
func mustEndTracers(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	eventually(t, "nobody is traced any more", func() bool {
		for _, task := range tasksOf(t, ns.Inode()) {
			if task.tracer != 0 {
				return false
			}
		}
		return true
	})
}

// allWithin calls All and fails if it does not return in time.
func allWithin(t *testing.T, ctx context.Context, ns *nsenter.Namespace, limit time.Duration) error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		s, err := All(ctx, ns.Inode(), Options{Timeout: 200 * time.Millisecond})
		if err == nil {
			s.Release()
		}
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-time.After(limit):
		t.Fatalf("All did not return within %v", limit)
		return nil
	}
}

// A process in an execve that does not end is left, and named; all others are held, and
// let go. Once it has ended it is held like others.
func TestSeizeWaitsForExecve(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	hung := startHungExecve(t, ns)
	c.waitMoved(t, 1)
	for range 3 {
		s := mustStop(t, ns, Options{})
		r := s.Report()
		tracer := fmt.Sprintf("(pid %d), who does not reap it", hung.tracer.PID())
		if !slices.ContainsFunc(r.Loose, func(task Task) bool {
			return task.PID == hung.process.PID() && strings.Contains(task.Why, "in execve") && strings.Contains(task.Why, tracer)
		}) {
			t.Errorf("loose are %+v, want pid %d, in execve, and its tracer %s", r.Loose, hung.process.PID(), tracer)
		}
		for _, task := range tasksOf(t, ns.Inode()) {
			if task.pid != hung.process.PID() && (task.state != 't' || !s.traces(task.tracer)) {
				t.Errorf("pid %d tid %d is in state %c, traced by %d; want t, traced by us", task.pid, task.tid, task.state, task.tracer)
			}
		}
		mustRelease(t, s)
		c.waitMoved(t, 1)
		for _, task := range tasksOf(t, ns.Inode()) {
			if task.pid != hung.process.PID() && task.tracer != 0 {
				t.Errorf("pid %d tid %d is traced by %d", task.pid, task.tid, task.tracer)
			}
		}
	}
	hung.goOn(t)
	mustEndTracers(t, ns)
	s := mustStop(t, ns, Options{})
	mustHoldAll(t, ns, s)
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
}

// TestCancelledInExecve: who called All may give up while a seize hangs.
func TestCancelledInExecve(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	hung := startHungExecve(t, ns)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := allWithin(t, ctx, ns, 5*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want %v", err, context.DeadlineExceeded)
	}
	c.waitMoved(t, 1)
	hung.goOn(t)
	mustEndTracers(t, ns)
}

// TestExecveEndsMeanwhile: an execve that ends in time is waited for.
func TestExecveEndsMeanwhile(t *testing.T) {
	ns := nstest.Fresh(t)
	hung := startHungExecve(t, ns)
	time.AfterFunc(50*time.Millisecond, func() { hung.tracer.Stop() })
	s := mustStop(t, ns, Options{Timeout: deadline})
	mustHoldAll(t, ns, s)
	mustRelease(t, s)
	if line := readLine(t, hung.process); line != "executed" {
		t.Errorf("the process said %q", line)
	}
}

// A thread of ours that nobody has told us of, and that execve(2) waits for: it was
// born to one that had been seized and had not stopped.
func TestExecveWaitsForOurs(t *testing.T) {
	ns := nstest.Fresh(t)
	p := nstest.Start(t, ns, execveProgram)
	thread := 0
	fmt.Sscan(readLine(t, p), &thread)
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	h := newHolder(proc, ns.Inode(), Options{Timeout: 10 * time.Second})
	h.tracers.of(p.PID(), true).do(func() { err = seize(thread) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdin.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the thread has ended and is not reaped", func() bool {
		stat, err := os.ReadFile(procPath(thread, ofThread(thread, "stat")))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	s, err := h.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustHoldAll(t, ns, s)
	mustRelease(t, s)
	if line := readLine(t, p); line != "executed" {
		t.Errorf("the process said %q, want that it executed", line)
	}
}

// A task that is taken for our tracee and is nobody's: execve(2) has given its id to
// a thread that had not been seized. It is our own child, so waitid(2) knows it.
func TestNobodysUnderKnownID(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	for _, stopped := range []bool{false, true} {
		proc, err := openProc()
		if err != nil {
			t.Fatal(err)
		}
		h := newHolder(proc, ns.Inode(), Options{Timeout: defaultTimeout})
		m := h.add(&member{tid: p.PID(), pid: p.PID(), seized: true, stopped: stopped, by: h.tracers.of(p.PID(), true)})
		<-m.by.ready
		s, err := h.start(t.Context())
		if err != nil {
			t.Fatalf("known as stopped %v: %v", stopped, err)
		}
		mustHoldAll(t, ns, s)
		mustRelease(t, s)
		c.waitMoved(t, 1)
	}
}
