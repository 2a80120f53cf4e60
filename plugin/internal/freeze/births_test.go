package freeze

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Where /proc does not tell who was born last, whoever was born unseen may run.
func TestUnseen(t *testing.T) {
	nstest.Require(t, "root")
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(proc.fd)
	proc.fd = procOfTasks(t)
	s, err := newHolder(proc, ns.Inode(), Options{Timeout: defaultTimeout}).start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c.mustRest(t)
	if r := s.Report(); !r.Unseen || r.Rounds < mostLost || r.Tasks == 0 {
		t.Errorf("%+v, want that somebody may be unseen", r)
	}
	mustRelease(t, s)
}

// Where somebody new comes in all the time, it is given up with the name of one of
// them, and all are let go.
func TestFlood(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, forkProgram, c.Path, "4", cloneFlags(0))
	c.waitMoved(t, 10)
	nstest.Try(t, func() error {
		proc, err := openProc()
		if err != nil {
			t.Fatal(err)
		}
		h := newHolder(proc, ns.Inode(), Options{Timeout: defaultTimeout})
		h.longest = 0
		s, err := h.start(context.Background())
		if err == nil {
			mustRelease(t, s)
			return errors.New("nobody new came in")
		}
		var blamed *TaskError
		if !errors.As(err, &blamed) || blamed.Task.PID == 0 || !strings.Contains(err.Error(), "new tasks keep coming") {
			t.Errorf("got %v, want the name of a new task", err)
		}
		return nil
	})
	c.waitMoved(t, 10)
	mustBeFree(t, ns.Inode())
}

// procOfTasks is a /proc without what is not about tasks.
func procOfTasks(t *testing.T) int {
	t.Helper()
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "subset", "pid"); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// The tasks are directories here.
func TestBirths(t *testing.T) {
	proc := fakeProc(t, "20/ns/ipc", "21/ns/ipc", "22/ns/ipc")
	for _, c := range []struct {
		name         string
		before, last int
		caught       bool
		seen         []int
	}{
		{"nobody", 22 + inBirth, 22 + inBirth, true, nil},
		{"those who were about to be born", 22, 22, true, []int{20, 21, 22}},
		{"three", 19, 22, true, []int{20, 21, 22}},
		{"one has ended", 21, 23, true, []int{20, 21, 22}},
		{"the numbers began anew", 22, 21, false, nil},
		{"too many", 22, 22 + mostBorn + 1, false, nil},
		{"not told", 0, 0, false, nil},
	} {
		var seen []int
		w := walk{
			proc:  proc,
			found: func(_, tid int, _ []byte) error { seen = append(seen, tid); return nil },
			born:  func() int { return c.last },
		}
		caught, err := w.births(c.before)
		if err != nil || caught != c.caught || !slices.Equal(seen, c.seen) {
			t.Errorf("%s: caught up %t, %v, seen %v; want %t, %v", c.name, caught, err, seen, c.caught, c.seen)
		}
	}
}

// Somebody is always born while we look.
func TestBirthsGoOn(t *testing.T) {
	last := 100
	w := walk{proc: fakeProc(t), born: func() int { last++; return last }}
	if caught, err := w.births(100); caught || err != nil || last > 100+2*mostChases {
		t.Errorf("caught up %t, %v, at %d", caught, err, last)
	}
}

// lxcfs mounts a file of its own over loadavg.
func TestLastPIDIsTheKernels(t *testing.T) {
	if last := fakeProc(t, "loadavg", "sys/kernel/ns_last_pid").lastPID(); last != 0 {
		t.Errorf("%d was born last, according to files that anybody made", last)
	}
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	before := proc.lastPID()
	child, err := os.StartProcess("/proc/self/exe", []string{"nobody", "-test.run=^$"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	after := proc.lastPID()
	if _, err := child.Wait(); err != nil {
		t.Error(err)
	}
	anew := child.Pid < before || after < before // the numbers may begin anew between any two
	if before == 0 || !anew && after < child.Pid {
		t.Errorf("the last one was %d, then %d, and %d was born between", before, after, child.Pid)
	}
}

// fakeProc is a directory with links, which tell something.
func fakeProc(t *testing.T, names ...string) *procfs {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("7\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(name) == "ipc" {
			if err := errors.Join(os.Remove(path), os.Symlink("ipc:[1]", path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &procfs{fd: fd}
}
