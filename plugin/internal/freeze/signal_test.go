package freeze

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// firstRealtime is SIGRTMIN as the C libraries give it.
const firstRealtime = 34

// catcher is testdata/signals.c at work in a namespace.
type catcher struct {
	pid   int
	lines chan string
	count counters
}

func startCatcher(t *testing.T, ns *nsenter.Namespace) catcher {
	t.Helper()
	nstest.Require(t, "cc")
	binary := filepath.Join(t.TempDir(), "signals")
	if out, err := exec.Command("cc", "-o", binary, "testdata/signals.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	c := newCounters(t)
	cmd := exec.Command(binary, c.Path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Run(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := make(chan string, 1<<20)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	c.waitMoved(t, 1)
	return catcher{cmd.Process.Pid, lines, c}
}

func (c catcher) mustSay(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-c.lines:
		if got != want {
			t.Fatalf("the task was given signal %q, want %q", got, want)
		}
	case <-time.After(deadline):
		t.Fatalf("the task was not given signal %q within %v", want, deadline)
	}
}

func (c catcher) state(t *testing.T) byte {
	t.Helper()
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	return proc.state(c.pid)
}

func mustKill(t testing.TB, pid int, signal unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}

// queue wraps rt_sigqueueinfo(2); false if the task's queue is full.
func queue(pid, signal, value int) (bool, error) {
	info := struct {
		signo, errno, code, _, pid, uid int32
		value                           uint64
		_                               [96]byte
	}{signo: int32(signal), code: -1 /* SI_QUEUE */, pid: int32(os.Getpid()), value: uint64(value)}
	_, _, e := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(signal), uintptr(unsafe.Pointer(&info)))
	if e != 0 && e != unix.EAGAIN {
		return false, os.NewSyscallError("rt_sigqueueinfo", e)
	}
	return e == 0, nil
}

func TestSignalsMeanwhile(t *testing.T) {
	ns := nstest.Fresh(t)
	c := startCatcher(t, ns)
	s := mustStop(t, ns, Options{})
	for value := range 20 {
		if ok, err := queue(c.pid, firstRealtime, value); !ok || err != nil {
			t.Fatalf("queued: %t, %v", ok, err)
		}
	}
	mustKill(t, c.pid, unix.SIGTERM)
	mustKill(t, c.pid, unix.SIGUSR1)
	mustKill(t, c.pid, unix.SIGUSR1) // one that is pending already is one
	c.count.mustRest(t)
	if len(c.lines) != 0 {
		t.Fatalf("a stopped task was given signal %q", <-c.lines)
	}
	mustRelease(t, s)
	c.mustSay(t, "10 0 0") // the kernel gives those with a lower number first
	c.mustSay(t, "15 0 0")
	for value := range 20 {
		c.mustSay(t, fmt.Sprintf("%d -1 %d", firstRealtime, value))
	}
	mustKill(t, c.pid, unix.SIGUSR1)
	c.mustSay(t, "10 0 0")
}

// mostQueued leaves room for others: the kernel counts the queued signals and the
// timers of all processes of a user (RLIMIT_SIGPENDING), of those too that hold tasks.
const mostQueued = 1000

// keepQueueing numbers the signals it queues, and says in the end how many.
func (c catcher) keepQueueing(sent chan<- int, stop <-chan struct{}) {
	for n := 0; ; runtime.Gosched() {
		select {
		case <-stop:
			sent <- n
			return
		default:
		}
		if n-len(c.lines) >= mostQueued {
			continue
		}
		ok, err := queue(c.pid, firstRealtime, n)
		if err != nil {
			<-stop
			sent <- -1
			return
		}
		if ok {
			n++
		}
	}
}

// TestSignalsAllTheWhile stops a task that is about to take a signal most of
// the time, and dies with it stopped every other time: all signals arrive, once
// and in order.
func TestSignalsAllTheWhile(t *testing.T) {
	ns := nstest.Fresh(t)
	c := startCatcher(t, ns)
	sent, stop := make(chan int), make(chan struct{})
	go c.keepQueueing(sent, stop)
	for range 15 {
		stopAndDie(t, ns)
		s, err := All(context.Background(), ns.Inode(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		mustRelease(t, s)
	}
	close(stop)
	n := <-sent
	if n < 0 {
		t.Fatal("the task is gone")
	}
	for value := range n {
		c.mustSay(t, fmt.Sprintf("%d -1 %d", firstRealtime, value))
	}
	mustBeFree(t, ns.Inode())
	t.Logf("%d signals", n)
}

func stopAndDie(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	p := nstest.Start(t, nil, freezeProgram, fmt.Sprint(ns.Inode()))
	readLine(t, p)
	if line := readLine(t, p); line[:4] != "held" {
		t.Fatal(line)
	}
	p.Kill()
}

func TestJobStopped(t *testing.T) {
	ns := nstest.Fresh(t)
	c := startCatcher(t, ns)
	mustKill(t, c.pid, unix.SIGSTOP)
	eventually(t, "SIGSTOP stops the task", func() bool { return c.state(t) == 'T' })
	s := mustStop(t, ns, Options{})
	mustHoldAll(t, ns, s)
	mustRelease(t, s)
	eventually(t, "the task is stopped as before", func() bool { return c.state(t) == 'T' })
	c.count.mustRest(t)

	s = mustStop(t, ns, Options{})
	mustKill(t, c.pid, unix.SIGCONT)
	c.count.mustRest(t)
	mustRelease(t, s)
	c.mustSay(t, "18 0 0")
	c.count.waitMoved(t, 1)
}

func TestStopSignalMeanwhile(t *testing.T) {
	ns := nstest.Fresh(t)
	c := startCatcher(t, ns)
	s := mustStop(t, ns, Options{})
	mustKill(t, c.pid, unix.SIGSTOP)
	mustRelease(t, s)
	eventually(t, "SIGSTOP stops the task", func() bool { return c.state(t) == 'T' })
	mustKill(t, c.pid, unix.SIGCONT)
	c.mustSay(t, "18 0 0")
	c.count.waitMoved(t, 1)
}
