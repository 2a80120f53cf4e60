package nsenter_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

func TestOpenPID(t *testing.T) {
	mustBeSame(t, opened(t)(nsenter.OpenPID(os.Getpid())), current(t))

	ns := nstest.Fresh(t)
	p, _ := startReady(t, ns, progWait)
	mustBeSame(t, opened(t)(nsenter.OpenPID(p.PID())), ns)
}

func TestOpenPIDOfNobody(t *testing.T) {
	ended := nstest.Start(t, nil, progExit)
	ended.Wait()
	for _, pid := range []int{0, -1, ended.PID(), 1 << 30} {
		if _, err := nsenter.OpenPID(pid); !errors.Is(err, unix.ESRCH) {
			t.Errorf("pid %d: got %v, want ESRCH", pid, err)
		}
	}
}

// Run's thread is never the first one, whose id is the process's.
func TestOpenPIDOfThread(t *testing.T) {
	err := current(t).Run(func() error {
		_, err := nsenter.OpenPID(unix.Gettid())
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "is the id of a thread") {
		t.Errorf("got %v", err)
	}
}

func TestOpenPIDOfZombie(t *testing.T) {
	p := nstest.Start(t, nil, progExit) // not waited for
	poll(t, "all threads of the zombie have ended", func() bool {
		n, err := nsenter.OpenPID(p.PID())
		if err == nil {
			n.Close()
		}
		return errors.Is(err, unix.ESRCH) && strings.Contains(err.Error(), "zombie")
	})
}

func TestOpenPIDWithoutFirstThread(t *testing.T) {
	ns := nstest.Fresh(t)
	p, _ := startReady(t, ns, progLeaderless)
	poll(t, "the first thread has ended", func() bool {
		_, err := os.Readlink(procPath(p.PID(), "ns/ipc"))
		return errors.Is(err, os.ErrNotExist)
	})
	mustBeSame(t, opened(t)(nsenter.OpenPID(p.PID())), ns)
	tasks, _, err := nsenter.Tasks(ns)
	if err != nil || len(tasks) != 1 || tasks[0].PID != p.PID() {
		t.Errorf("Tasks: %v, %v, want process %d", tasks, err, p.PID())
	}
}

// A pidfd outlives its process: from then on whatever /proc showed under that
// pid may be somebody else's.
func TestReapedProcessIsNoticed(t *testing.T) {
	p, _ := startReady(t, nil, progWait)
	pidfd, err := unix.PidfdOpen(p.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := nsenter.CheckHolds(pidfd, p.PID()); err != nil {
		t.Errorf("alive: %v", err)
	}
	if err := nsenter.CheckHolds(pidfd, p.PID()+1); err == nil || !strings.Contains(err.Error(), "is mounted for another pid namespace") {
		t.Errorf("another pid in /proc: %v", err)
	}
	p.Kill()
	if err := nsenter.CheckHolds(pidfd, p.PID()); !errors.Is(err, unix.ESRCH) {
		t.Errorf("reaped: got %v, want ESRCH", err)
	}
}

// The kernel says EACCES of a thread that has ended under the look-up.
func TestDeniedOrGone(t *testing.T) {
	p, _ := startReady(t, nil, progWait)
	dir, err := unix.Open(procPath(p.PID(), ""), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if err := nsenter.LinkError(dir, "task", unix.EACCES); err != unix.EACCES {
		t.Errorf("of a living task: %v", err)
	}
	p.Kill()
	if err := nsenter.LinkError(dir, "task", unix.EACCES); err != unix.ENOENT && err != unix.ESRCH {
		t.Errorf("of one that has ended: %v", err)
	}
	if err := nsenter.LinkError(dir, "task", unix.EIO); err != unix.EIO {
		t.Errorf("another error became %v", err)
	}
}

// Processes that end while they are opened: every one that opens must be the
// right one, every other an ESRCH.
func TestOpenPIDOfEndingProcesses(t *testing.T) {
	ns := nstest.Fresh(t)
	for range 60 {
		p := nstest.Start(t, ns, progExit)
		var openers sync.WaitGroup
		for range 3 {
			openers.Go(func() { openUntilGone(t, p.PID(), ns) })
		}
		p.Wait()
		openers.Wait()
	}
}

func openUntilGone(t *testing.T, pid int, want *nsenter.Namespace) {
	for {
		n, err := nsenter.OpenPID(pid)
		if err != nil {
			if !errors.Is(err, unix.ESRCH) {
				t.Errorf("open ending process: %v", err)
			}
			if !strings.Contains(err.Error(), "zombie") {
				return
			}
			continue
		}
		if same, _ := n.Same(want); !same {
			t.Errorf("opened %s, want %s", n, want)
		}
		n.Close()
	}
}
