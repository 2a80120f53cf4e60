package guard

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const (
	msgmax   = "kernel.msgmax"
	oldMax   = 8192
	raised   = 20000
	deadline = 20 * time.Second
)

func tempState(t testing.TB) *state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func change(from, to int64) Things {
	return Things{Sysctls: []Sysctl{{Name: msgmax, Old: from, Raised: to}}}
}

func getMax(t testing.TB, ns *nsenter.Namespace, root *Root) (value int64) {
	t.Helper()
	err := openSpace(ns, root).Run(func(kn kernel.Kernel) (err error) {
		value, err = ReadSysctl(kn, msgmax)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func setMax(ns *nsenter.Namespace, root *Root, value int64) error {
	return openSpace(ns, root).Run(func(kn kernel.Kernel) error { return kn.SetSysctl(msgmax, value) })
}

// until polls for a state.
func until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not reached in %v: %s", deadline, what)
		}
	}
}

// files lists all but the log.
func files(t testing.TB, dir *state.Dir) []string {
	t.Helper()
	names, err := dir.Names()
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == eventlog.FileName })
	return names
}

func empty(t testing.TB, dir *state.Dir) func() bool {
	return func() bool { return len(files(t, dir)) == 0 }
}

// ownerProgram raises msgmax under a guard, prints the guard's pid and waits for
// a line on stdin, upon which it ends as it should.
// Its arguments: namespace, state directory or empty.
var ownerProgram = nstest.Program("guard.owner", func(args []string) {
	inherited, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
	check(err)
	ns, err := nsenter.OpenPath(args[0])
	check(err)
	var dir *state.Dir
	if args[1] != "" {
		dir, err = state.Open(args[1])
		check(err)
	}
	g, err := Start(ns, dir, time.Minute)
	check(err)
	check(g.Set(change(oldMax, raised)))
	check(setMax(ns, g.root, raised))
	fmt.Println(g.PID())
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	check(err)
	check(setMax(ns, g.root, oldMax))
	check(g.Release())
	_ = inherited
})

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// owner is a process that has raised msgmax to raised.
type owner struct {
	*nstest.Process
	guard int // pid
}

func startOwner(t testing.TB, ns *nsenter.Namespace, dir *state.Dir) owner {
	t.Helper()
	path := ""
	if dir != nil {
		path = dir.Path()
	}
	p := nstest.Start(t, nil, ownerProgram, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()), path)
	line, err := p.Stdout.ReadString('\n')
	if err != nil {
		p.Kill()
		t.Fatalf("owner: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	guard, err := state.Lookup(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the guard writes in the state directory until it ends
		p.Kill()
		until(t, "the guard has ended", func() bool { return !guard.Alive() })
	})
	return owner{p, pid}
}

// killBoth kills the guard first, so that it cannot do its work.
func (o owner) killBoth(t testing.TB) {
	t.Helper()
	guard, err := state.Lookup(o.guard)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(o.guard, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the guard is dead", func() bool { return !guard.Alive() })
	o.Kill()
}

func recoverNow(dir *state.Dir) state.Recovery {
	names, err := dir.Names()
	if err != nil {
		panic(err)
	}
	return Recover(context.Background(), dir, names, SettleTime)
}
