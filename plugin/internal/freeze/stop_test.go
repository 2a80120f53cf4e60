package freeze

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

func TestStopsAndReleases(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "2", "3")
	c.waitMoved(t, 1)
	for range 10 {
		s := mustStop(t, ns, Options{})
		mustHoldAll(t, ns, s)
		c.mustRest(t)
		if r := s.Report(); len(r.Loose) != 0 || r.Rounds < 2 {
			t.Errorf("report %+v: want nobody loose and two rounds at least", r)
		}
		mustRelease(t, s)
		mustRelease(t, s)
		mustBeFree(t, ns.Inode())
		c.waitMoved(t, 1)
	}
}

func TestEmptyNamespace(t *testing.T) {
	s := mustStop(t, nstest.Fresh(t), Options{})
	if r := s.Report(); r.Tasks != 0 || r.Rounds != 1 || len(r.Loose) != 0 {
		t.Errorf("report %+v: want no task and one round", r)
	}
}

func TestThousandThreads(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "0", "1000")
	eventually(t, "a thousand threads", func() bool { return len(tasksOf(t, ns.Inode())) > 1000 })
	s := mustStop(t, ns, Options{})
	mustHoldAll(t, ns, s)
	c.mustRest(t)
	t.Logf("%d tasks in %d rounds", s.Report().Tasks, s.Report().Rounds)
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
	c.waitMoved(t, 1)
}

func TestFirstThreadEnded(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, headlessProgram, c.Path)
	eventually(t, "the first thread has ended", func() bool {
		proc, err := openProc()
		if err != nil {
			t.Fatal(err)
		}
		defer proc.close()
		return proc.state(p.PID()) == 'Z'
	})
	c.waitMoved(t, 1)
	s := mustStop(t, ns, Options{})
	mustHoldAll(t, ns, s)
	c.mustRest(t)
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
	c.waitMoved(t, 1)
}

func TestThreadsInTwoNamespaces(t *testing.T) {
	// A thread that is preempted needs another to run again, and those stand still.
	t.Setenv("GODEBUG", "asyncpreemptoff=1")
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, mixedProgram, c.Path)
	eventually(t, "both threads count", func() bool { return c.Slot[0].Load() > 0 && c.Slot[1].Load() > 0 })
	s := mustStop(t, ns, Options{})
	mustHoldAll(t, ns, s)
	inside, outside := c.Slot[0].Load(), c.Slot[1].Load()
	eventually(t, "the thread outside goes on", func() bool { return c.Slot[1].Load() > outside })
	if now := c.Slot[0].Load(); now != inside {
		t.Errorf("the thread inside counted from %d to %d", inside, now)
	}
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
}

func TestHostRefused(t *testing.T) {
	if _, err := All(context.Background(), nsenter.HostInode, Options{}); !errors.Is(err, ErrHost) {
		t.Errorf("err = %v, want %v", err, ErrHost)
	}
}

func TestCancelled(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	opt := Options{Exempt: func(int) bool { cancel(); return false }}
	if _, err := All(ctx, ns.Inode(), opt); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want %v", err, context.Canceled)
	}
	mustBeFree(t, ns.Inode())
	c.waitMoved(t, 1)
}

// TestOtherChildren sees to it that nobody's child is waited for but tracees.
func TestOtherChildren(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "1", "2")
	c.waitMoved(t, 1)
	outside := exec.Command("/bin/sh", "-c", "exit 7")
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	waitZombie(t, outside.Process.Pid)
	s := mustStop(t, ns, Options{})
	if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil { // a child of ours that is held
		t.Fatal(err)
	}
	eventually(t, "the killed child has no thread but the first", func() bool {
		threads, err := os.ReadDir(procPath(p.PID(), "task"))
		return err == nil && len(threads) == 1
	})
	waitZombie(t, p.PID())
	time.Sleep(10 * reapPause) // it must leave both alone
	mustRelease(t, s)
	var status *exec.ExitError
	if err := outside.Wait(); !errors.As(err, &status) || status.ExitCode() != 7 {
		t.Errorf("child outside: %v, want exit status 7", err)
	}
	if err := p.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("killed child: %v, want signal: killed", err)
	}
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func waitZombie(t testing.TB, pid int) {
	t.Helper()
	eventually(t, "the child has ended", func() bool {
		proc, err := openProc()
		if err != nil {
			t.Fatal(err)
		}
		defer proc.close()
		return proc.state(pid) == 'Z'
	})
}

func BenchmarkAll(b *testing.B) {
	for _, threads := range []string{"1", "1000"} {
		b.Run(threads, func(b *testing.B) { benchmarkAll(b, nstest.Fresh(b), threads) })
	}
}

func benchmarkAll(b *testing.B, ns *nsenter.Namespace, threads string) {
	c := nstest.NewCounters(b)
	nstest.Start(b, ns, busyProgram, c.Path, "0", threads)
	n, _ := strconv.Atoi(threads)
	eventually(b, "all threads", func() bool { return len(tasksOf(b, ns.Inode())) > n })
	for b.Loop() {
		s, err := All(context.Background(), ns.Inode(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}
