package freeze

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// cgroup is a cgroup of the v1 freezer, with another one below it.
type cgroup string

func newCgroup(t *testing.T) cgroup {
	t.Helper()
	want := nstest.Freezer(t)
	if got := findFreezer().dir; got != want {
		t.Fatalf("the freezer is at %q, found at %q", want, got)
	}
	dir, err := os.MkdirTemp(want, "ipc-cr-test-")
	if err != nil {
		t.Fatal(err)
	}
	c := cgroup(dir)
	if err := os.Mkdir(c.below(), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.write(t, "freezer.state", "THAWED")
		eventually(t, "the cgroups can be removed", func() bool {
			os.Remove(c.below())
			return os.Remove(dir) == nil
		})
	})
	return c
}

func (c cgroup) write(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(c), file), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c cgroup) below() string { return filepath.Join(string(c), "below") }

// freeze moves a process into the cgroup, or the one below it, and freezes it.
func (c cgroup) freeze(t *testing.T, pid int, below bool) {
	t.Helper()
	in := c
	if below {
		in = cgroup(c.below())
	}
	in.write(t, "cgroup.procs", strconv.Itoa(pid))
	c.write(t, "freezer.state", "FROZEN")
	eventually(t, "the cgroup is frozen", func() bool {
		state, err := os.ReadFile(filepath.Join(string(in), "freezer.state"))
		return err == nil && string(state) == "FROZEN\n"
	})
}

func TestFrozenByCgroup(t *testing.T) {
	for _, below := range []bool{false, true} {
		t.Run("below="+strconv.FormatBool(below), func(t *testing.T) {
			cg, ns, frozen, c := newCgroup(t), nstest.Fresh(t), newCounters(t), newCounters(t)
			p := nstest.Start(t, ns, busyProgram, frozen.Path, "1", "3")
			nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
			frozen.waitMoved(t, 1)
			c.waitMoved(t, 1)
			cg.freeze(t, p.PID(), below)
			for range 3 {
				s := mustStop(t, ns, Options{})
				c.mustRest(t)
				frozen.mustRest(t)
				mustBeLoose(t, s, p.PID(), WhyFrozen)
				mustRelease(t, s)
				c.waitMoved(t, 1)
			}
			cg.write(t, "freezer.state", "THAWED")
			frozen.waitMoved(t, 1)
			mustBeFree(t, ns.Inode())
		})
	}
}

// TestThawedMeanwhile: who was frozen when all others were stopped stops too
// once it can.
func TestThawedMeanwhile(t *testing.T) {
	cg, ns, c := newCgroup(t), nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	c.waitMoved(t, 1)
	cg.freeze(t, p.PID(), false)
	s := mustStop(t, ns, Options{})
	mustBeLoose(t, s, p.PID(), WhyFrozen)
	cg.write(t, "freezer.state", "THAWED")
	eventually(t, "the thawed tasks stop", func() bool {
		for _, task := range tasksOf(t, ns.Inode()) {
			if task.state != 't' {
				return false
			}
		}
		return true
	})
	mustRelease(t, s)
	mustBeFree(t, ns.Inode())
	c.waitMoved(t, 1)
}

// TestFrozenWhileJobStopped has PTRACE_SEIZE hang, were it called.
func TestFrozenWhileJobStopped(t *testing.T) {
	cg, ns, c := newCgroup(t), nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	c.waitMoved(t, 1)
	mustKill(t, p.PID(), unix.SIGSTOP)
	eventually(t, "SIGSTOP stops all threads", func() bool {
		for _, task := range tasksOf(t, ns.Inode()) {
			if task.state != 'T' {
				return false
			}
		}
		return true
	})
	cg.freeze(t, p.PID(), false)
	s := mustStop(t, ns, Options{})
	mustBeLoose(t, s, p.PID(), WhyFrozen)
	mustRelease(t, s)
	cg.write(t, "freezer.state", "THAWED")
	mustKill(t, p.PID(), unix.SIGCONT)
	c.waitMoved(t, 1)
	mustBeFree(t, ns.Inode())
}

// mustBeLoose wants all tasks of a process in the report, and no others.
func mustBeLoose(t *testing.T, s *Stopped, pid int, why string) {
	t.Helper()
	threads, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		t.Fatal(err)
	}
	loose := s.Report().Loose
	if len(loose) != len(threads) {
		t.Errorf("%d tasks are loose, want the %d threads of %d", len(loose), len(threads), pid)
	}
	for _, task := range loose {
		if task.PID != pid || task.Why != why {
			t.Errorf("loose: %+v, want threads of %d that are loose because each %s", task, pid, why)
		}
	}
}

func TestFreezerStateOf(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a b", "freezer.state"), []byte("FREEZING\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct{ root, cgroups, want string }{
		{"/", "7:blkio:/x\n6:freezer:/a b\n0::/\n", "FREEZING"},
		{"/", "6:cpu,freezer:/a b\n", "FREEZING"},
		{"/docker/1", "6:freezer:/docker/1/a b\n", "FREEZING"},
		{"/docker/1", "6:freezer:/docker/2/a b\n", ""},
		{"/", "6:freezer:/other\n", ""},
		{"/", "6:freezers:/a b\n", ""},
		{"/", "", ""},
	}
	for _, c := range cases {
		if got := (freezer{dir: dir, root: c.root}).stateOf([]byte(c.cgroups)); got != c.want {
			t.Errorf("root %q, cgroup file %q: state %q, want %q", c.root, c.cgroups, got, c.want)
		}
	}
}
