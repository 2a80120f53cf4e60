package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

var holdProgram = nstest.Program("freeze.hold", holdTasks)

// holdTasks PATH LIMIT RELEASES stops the tasks of the namespace at PATH, says so,
// and releases them when LIMIT is over, if it RELEASES.
func holdTasks(args []string) {
	ns, err := nsenter.OpenPath(args[0])
	if err != nil {
		panic(err)
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		panic(err)
	}
	s, err := All(context.Background(), ns.Inode(), Options{Limit: limit})
	if err != nil {
		panic(err)
	}
	if args[2] == "true" {
		time.AfterFunc(limit, func() { s.Release() })
	}
	fmt.Println("held")
	os.Stdin.Read(make([]byte, 1))
}

// A tracer that is stopped itself does not hold the tasks for longer than it may.
func TestStoppedTracer(t *testing.T) {
	const limit = 500 * time.Millisecond
	for _, releases := range []bool{true, false} {
		t.Run(fmt.Sprintf("releases %t", releases), func(t *testing.T) {
			nstest.Try(t, func() error { return stopTracer(t, limit, releases) })
		})
	}
}

// stopTracer stops one that holds a namespace's tasks. The error says that it took too
// long for what else the machine may have done.
func stopTracer(t *testing.T, limit time.Duration, releases bool) error {
	t.Helper()
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "1")
	c.waitMoved(t, 1)
	began := time.Now()
	p := nstest.Start(t, nil, holdProgram, pathOf(ns), limit.String(), fmt.Sprint(releases))
	readLine(t, p)
	if time.Since(began) > limit/2 {
		return errors.New("it has held them for too long already")
	}
	if err := unix.Kill(p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.mustRest(t)
	c.waitMoved(t, 1)
	most := limit
	if !releases {
		most += grace
		eventually(t, "the tracer has ended", func() bool { return endedBy(t, p.PID()) })
	}
	stood := time.Since(began)
	if stood < limit {
		t.Errorf("the tasks ran again after %v, want %v", stood, most)
	}
	mustBeFree(t, ns.Inode())
	if releases && endedBy(t, p.PID()) {
		t.Error("the tracer has ended")
	}
	if stood > most+2*time.Second {
		return fmt.Errorf("the tasks ran again after %v, want %v", stood, most)
	}
	return nil
}

// endedBy reports whether a child of this process is a zombie.
func endedBy(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(stat), ") Z ")
}

// Without a limit a tracer that was stopped goes on, and holds the tasks again.
func TestStoppedTracerWithoutLimit(t *testing.T) {
	nstest.Try(t, func() error { return stopTracerWithoutLimit(t) })
}

func stopTracerWithoutLimit(t *testing.T) error {
	t.Helper()
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "1")
	p := nstest.Start(t, nil, holdProgram, pathOf(ns), "0s", "false")
	readLine(t, p)
	if err := unix.Kill(p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	eventually(t, "the tracer is stopped", func() bool { return proc.state(p.PID()) == 'T' })
	eventually(t, "the tracer goes on", func() bool { return proc.state(p.PID()) != 'T' })
	stood := time.Since(began)
	if stood < heartStopped-heartbeat-time.Second {
		t.Errorf("it went on after %v, want %v", stood, heartStopped)
	}
	for end := time.Now().Add(heartbeat + grace + time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		c.mustRest(t)
	}
	if endedBy(t, p.PID()) {
		t.Error("it was ended although it went on")
	}
	p.Kill()
	c.waitMoved(t, 1)
	if stood > heartStopped+2*time.Second {
		return fmt.Errorf("it went on after %v, want %v", stood, heartStopped)
	}
	return nil
}

// lettingGo begins to let go when its limit is over, and takes more time for that than a
// process has that does not begin.
var lettingGo = nstest.Program("freeze.lettinggo", func([]string) {
	const limit = 100 * time.Millisecond
	d, err := watchSelf(limit)
	if err != nil {
		panic(err)
	}
	time.Sleep(limit)
	if err := d.begin(); err != nil {
		panic(err)
	}
	time.Sleep(limit + grace + time.Second)
	fmt.Println("let go")
})

// One that is letting go is not ended, however long that takes.
func TestLettingGoTakesLong(t *testing.T) {
	t.Parallel()
	p := nstest.Start(t, nil, lettingGo)
	if line := readLine(t, p); line != "let go" {
		t.Errorf("it says %q", line)
	}
}

// noSignals holds the tasks of a namespace in a process that may have no pending
// signals, as where a tenant has used up the user's, and says what became of the timers.
var noSignals = nstest.Program("freeze.nosignals", func(args []string) {
	ns, err := nsenter.OpenPath(args[0])
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_SIGPENDING, &unix.Rlimit{})
	}
	if err != nil {
		panic(err)
	}
	s, err := All(context.Background(), ns.Inode(), Options{Limit: time.Minute})
	if err != nil {
		panic(err)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &now); err != nil || now != (unix.Rlimit{}) {
		fmt.Printf("the limit is %+v, %v; ", now, err)
	}
	timers, err := os.ReadFile("/proc/self/timers")
	fmt.Println(s.Report().Tasks > 0, s.Report().Unwatched, strings.Count(string(timers), "signal: "), err)
	s.Release()
})

// A tenant that uses up the pending signals of a user keeps nobody from being held.
func TestNoPendingSignals(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "1")
	c.waitMoved(t, 1)
	p := nstest.Start(t, nil, noSignals, pathOf(ns))
	want := "true timer_create: resource temporarily unavailable 0 <nil>"
	if mayRaise() {
		want = "true <nil> 2 <nil>"
	}
	if line := readLine(t, p); line != want {
		t.Errorf("it says %q, want %q", line, want)
	}
}

// mayRaise reports whether this process may raise its limits (CAP_SYS_RESOURCE).
func mayRaise() bool {
	var held [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return unix.Capget(&header, &held[0]) == nil && held[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// Nothing of the timers is left when the tasks are released.
func TestTimersEnd(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "1")
	for _, limit := range []time.Duration{0, time.Minute} {
		s := mustStop(t, ns, Options{Limit: limit})
		if n := len(timersOf(t)); n != 2 {
			t.Errorf("limit %v: %d timers, want 2", limit, n)
		}
		mustRelease(t, s)
		if left := timersOf(t); len(left) != 0 {
			t.Errorf("limit %v: left %q", limit, left)
		}
	}
}

// timersOf returns a line for each POSIX timer of this process that is to send a
// signal (proc_pid_timers(5)).
func timersOf(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/timers")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "signal: ") {
			lines = append(lines, line)
		}
	}
	return lines
}
