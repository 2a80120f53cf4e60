package limits

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestRaiseAndPutBack(t *testing.T) {
	b := newBench(t)
	b.mustRaise(msgmax, 20000)
	if b.GuardPID() == 0 || len(b.notes()) != 1 {
		t.Errorf("guard %d, notes %v: want one of each", b.GuardPID(), b.notes())
	}
	b.mustRaise(msgmni, 32768)
	b.mustRaise(msgmax, 30000)
	b.mustRaise(msgmax, 25000) // is enough already
	b.want("raised", values{msgmax: 30000, msgmni: 32768})
	guarded := b.GuardPID()
	for range 2 {
		if err := b.PutBack(); err != nil {
			t.Fatal(err)
		}
	}
	b.want("put back", nil)
	want := []Change{{msgmax, 8192, 30000}, {msgmni, 32000, 32768}}
	if got := b.Changes(); !slices.Equal(got, want) {
		t.Errorf("changes %v, want %v", got, want)
	}
	if _, err := state.Lookup(guarded); !errors.Is(err, unix.ENOENT) || len(b.notes()) != 0 {
		t.Errorf("guard %v, notes %v are left", err, b.notes())
	}
}

func TestKeeperGoesOnAfterPutBack(t *testing.T) {
	b := newBench(t)
	for range 2 {
		b.mustRaise(msgmax, 20000)
		b.want("raised", values{msgmax: 20000})
		if err := b.PutBack(); err != nil {
			t.Fatal(err)
		}
		b.want("put back", nil)
	}
}

func TestRaiseOfWhatIsEnough(t *testing.T) {
	b := newBench(t)
	b.mustRaise(msgmax, 8192)
	b.mustRaise(msgmnb, 1)
	b.want("not raised", nil)
	if b.GuardPID() != 0 || len(b.notes()) != 0 || len(b.Changes()) != 0 {
		t.Errorf("guard %d, notes %v, changes %v: want none", b.GuardPID(), b.notes(), b.Changes())
	}
}

func TestReportFormat(t *testing.T) {
	b := newBench(t)
	b.mustRaise(msgmax, 20000)
	got, err := json.Marshal(b.Changes())
	if want := `[{"sysctl":"kernel.msgmax","was":8192,"raised_to":20000}]`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestOthersChanges(t *testing.T) {
	tests := []struct {
		name   string
		do     func(b bench)
		raised values
		after  values
	}{
		{"lowered", func(b bench) { b.set(msgmax, 9000) }, values{msgmax: 9000}, values{msgmax: 9000}},
		{"raised further", func(b bench) { b.set(msgmax, 90000) }, values{msgmax: 90000}, values{msgmax: 90000}},
		{"lowered, then raised again by us", func(b bench) {
			b.set(msgmax, 9000)
			b.mustRaise(msgmax, 20000)
		}, values{msgmax: 20000}, values{msgmax: 9000}},
		{"another limit", func(b bench) { b.set(msgmnb, 9000) }, values{msgmax: 20000, msgmnb: 9000}, values{msgmnb: 9000}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.mustRaise(msgmax, 20000)
			test.do(b)
			b.want("raised", test.raised)
			if err := b.PutBack(); err != nil {
				t.Fatal(err)
			}
			b.want("put back", test.after)
		})
	}
}

func TestKeep(t *testing.T) {
	b := newBench(t)
	b.mustRaise(msgmax, 1<<20)
	b.mustRaise(msgmnb, 1<<20)
	b.mustRaise(msgmni, 32768)
	b.run(func(kn kernel.Kernel) error {
		return errors.Join(b.Keep(kn, msgmax, 5000), b.Keep(kn, msgmnb, 1<<20))
	})
	b.want("kept", values{msgmax: 5000, msgmnb: 1 << 20, msgmni: 32768})
	if err := b.PutBack(); err != nil {
		t.Fatal(err)
	}
	b.want("put back", values{msgmax: 5000, msgmnb: 1 << 20})
	if got, want := b.Changes(), []Change{{msgmni, 32000, 32768}}; !slices.Equal(got, want) {
		t.Errorf("changes %v, want %v", got, want)
	}
}

func TestKeepAlone(t *testing.T) {
	b := newBench(t)
	b.run(func(kn kernel.Kernel) error { return b.Keep(kn, msgmax, 5000) })
	if b.GuardPID() != 0 {
		t.Error("a guard was started for nothing")
	}
	if err := b.PutBack(); err != nil {
		t.Fatal(err)
	}
	b.want("kept", values{msgmax: 5000})
}

func TestUnshared(t *testing.T) {
	b := newBench(t)
	b.Unshared()
	b.mustRaise(msgmax, 20000)
	b.want("raised", values{msgmax: 20000})
	if b.GuardPID() != 0 || len(b.notes()) != 0 {
		t.Errorf("guard %d, notes %v: want none", b.GuardPID(), b.notes())
	}
	if err := b.PutBack(); err != nil {
		t.Fatal(err)
	}
	b.want("put back", nil)
}

func TestForbid(t *testing.T) {
	b := newBench(t)
	b.Forbid("limits of the host's IPC namespace")
	b.mustRaise(msgmax, 8192) // changes nothing
	b.run(func(kn kernel.Kernel) error { return b.Keep(kn, msgmax, 8192) })
	for what, try := range map[string]func(kn kernel.Kernel) error{
		"raise": func(kn kernel.Kernel) error { return b.Raise(kn, msgmax, 20000) },
		"keep":  func(kn kernel.Kernel) error { return b.Keep(kn, msgmax, 20000) },
	} {
		err := b.space.Run(try)
		if !errors.Is(err, ErrForbidden) {
			t.Fatalf("%s: %v, want ErrForbidden", what, err)
		}
		for _, part := range []string{"kernel.msgmax is 8192, 20000 is needed", "sysctl kernel.msgmax=20000", "the host's"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not say %q", what, err, part)
			}
		}
	}
	b.want("forbidden", nil)
	if b.GuardPID() != 0 {
		t.Error("a guard was started")
	}
}

// What could not be raised is not guarded: the value may become somebody's.
func TestRaiseThatFails(t *testing.T) {
	b := newBench(t)
	err := b.space.Run(func(kn kernel.Kernel) error { return b.Raise(brokenKernel{kn}, msgmax, 20000) })
	if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "raise kernel.msgmax from 8192 to 20000") {
		t.Errorf("error %v: want EACCES, the limit and the values", err)
	}
	for _, name := range b.notes() {
		content, err := os.ReadFile(filepath.Join(b.state, name))
		if err != nil || strings.Contains(string(content), msgmax) {
			t.Errorf("note %s, %v: the limit is still guarded", content, err)
		}
	}
	b.set(msgmax, 20000)
	if err := b.PutBack(); err != nil {
		t.Fatal(err)
	}
	b.want("somebody else's", values{msgmax: 20000})
	if len(b.Changes()) != 0 {
		t.Errorf("changes %v, want none", b.Changes())
	}
}

func TestRaiseInvalid(t *testing.T) {
	b := newBench(t)
	err := b.space.Run(func(kn kernel.Kernel) error { return b.Raise(kn, msgmax, 1<<31) })
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("more than an int: %v, want EINVAL", err)
	}
	err = b.space.Run(func(kn kernel.Kernel) error { return b.Raise(kn, "kernel.msg_nothing", 1) })
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "kernel.msg_nothing") {
		t.Errorf("no such sysctl: %v, want ENOENT and its name", err)
	}
	b.want("invalid", nil)
}

func TestPutBackThatFails(t *testing.T) {
	b := newBench(t)
	b.mustRaise(msgmax, 20000)
	whole := b.space
	b.space = brokenSpace{whole}
	err := b.PutBack()
	if !errors.Is(err, unix.EACCES) {
		t.Fatalf("put back: %v, want EACCES", err)
	}
	for _, part := range []string{"kernel.msgmax from 20000 to 8192", "sysctl kernel.msgmax=8192"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if b.GuardPID() == 0 || len(b.notes()) != 1 {
		t.Error("the guard was let go")
	}
	b.space = whole
	if err := b.PutBack(); err != nil {
		t.Fatal(err)
	}
	b.want("put back at last", nil)
}

func TestConcurrentRaises(t *testing.T) {
	b := newBench(t)
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			name := []string{msgmax, msgmnb}[i%2]
			if err := b.space.Run(func(kn kernel.Kernel) error { return b.Raise(kn, name, int64(20000+i)) }); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	b.want("raised", values{msgmax: 20014, msgmnb: 20015})
	if err := b.PutBack(); err != nil {
		t.Fatal(err)
	}
	b.want("put back", nil)
}

func TestUntrustedStateDirectory(t *testing.T) {
	b := newBench(t)
	b.openState = func() (*state.Dir, error) { return nil, state.ErrUntrusted }
	err := b.space.Run(func(kn kernel.Kernel) error { return b.Raise(kn, msgmax, 20000) })
	if !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("raise: %v, want ErrUntrusted", err)
	}
	b.want("not guarded", nil)
}
