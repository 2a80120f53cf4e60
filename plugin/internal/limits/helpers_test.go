package limits

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/guard"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const (
	msgmax   = "kernel.msgmax"
	msgmnb   = "kernel.msgmnb"
	msgmni   = "kernel.msgmni"
	deadline = 20 * time.Second
)

// values are the limits of a namespace.
type values map[string]int64

var defaults = values{msgmax: 8192, msgmnb: 16384, msgmni: 32000}

// bench is a namespace, a Keeper of it and its state directory.
type bench struct {
	*Keeper
	t     testing.TB
	state string
}

func newBench(t testing.TB) bench {
	t.Helper()
	ns := nstest.Fresh(t)
	b := bench{NewKeeper(ns, linux.NewSpace(ns, nil)), t, filepath.Join(t.TempDir(), "state")}
	b.openState = func() (*state.Dir, error) { return state.Open(b.state) }
	t.Cleanup(func() {
		if err := b.PutBack(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b bench) run(fn func(kn kernel.Kernel) error) {
	b.t.Helper()
	if err := b.space.Run(fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b bench) mustRaise(name string, atLeast int64) {
	b.t.Helper()
	b.run(func(kn kernel.Kernel) error { return b.Raise(kn, name, atLeast) })
}

func (b bench) set(name string, value int64) {
	b.t.Helper()
	b.run(func(kn kernel.Kernel) error { return kn.SetSysctl(name, value) })
}

// want compares the limits with the defaults, but for those given.
func (b bench) want(when string, changed values) {
	b.t.Helper()
	for name := range defaults {
		want, isChanged := changed[name]
		if !isChanged {
			want = defaults[name]
		}
		if got := b.get(name); got != want {
			b.t.Errorf("%s: %s is %d, want %d", when, name, got, want)
		}
	}
}

func (b bench) get(name string) (value int64) {
	b.t.Helper()
	b.run(func(kn kernel.Kernel) (err error) {
		value, err = guard.ReadSysctl(kn, name)
		return err
	})
	return value
}

// notes lists the state directory without the log. It need not exist.
func (b bench) notes() []string {
	b.t.Helper()
	entries, err := os.ReadDir(b.state)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != eventlog.FileName {
			names = append(names, entry.Name())
		}
	}
	return names
}

func until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not reached in %v: %s", deadline, what)
		}
	}
}

// brokenKernel refuses to write.
type brokenKernel struct{ kernel.Kernel }

func (brokenKernel) SetSysctl(string, int64) error { return unix.EACCES }

type brokenSpace struct{ kernel.Space }

func (s brokenSpace) Run(fn func(kernel.Kernel) error) error {
	return s.Space.Run(func(kn kernel.Kernel) error { return fn(brokenKernel{kn}) })
}

// raiserProgram raises and puts back limits without end. Its arguments:
// namespace, state directory.
var raiserProgram = nstest.Program("limits.raiser", func(args []string) {
	ns, err := nsenter.OpenPath(args[0])
	check(err)
	fmt.Println("ready")
	for {
		k := NewKeeper(ns, linux.NewSpace(ns, nil))
		k.openState = func() (*state.Dir, error) { return state.Open(args[1]) }
		check(k.space.Run(func(kn kernel.Kernel) error {
			return errors.Join(k.Raise(kn, msgmax, 20000), k.Raise(kn, msgmnb, 1<<20), k.Raise(kn, msgmax, 1<<20))
		}))
		time.Sleep(rand.N(3 * time.Millisecond)) // so that many a kill comes now
		check(k.PutBack())
	}
})

// lonelyProgram raises a limit of the namespace it is in, with no place for a
// note, and waits.
var lonelyProgram = nstest.Program("limits.lonely", func([]string) {
	check(os.Unsetenv("XDG_RUNTIME_DIR"))
	ns, err := nsenter.Current()
	check(err)
	k := NewKeeper(ns, linux.NewSpace(ns, nil))
	check(k.space.Run(func(kn kernel.Kernel) error { return k.Raise(kn, msgmax, 20000) }))
	fmt.Println(k.dir == nil, k.GuardPID())
	select {}
})

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
