package ipcvar

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/memkernel"
)

// bench restores limits alone, as the engine does.
type bench struct {
	*kind.Target
	t   testing.TB
	mem *memkernel.Space
}

func newBench(t testing.TB) *bench {
	mem := memkernel.New()
	b := &bench{&kind.Target{Space: mem, Limits: limits.NewKeeper(nil, mem)}, t, mem}
	b.Limits.Unshared()
	return b
}

func imageOf(t testing.TB, vars *images.Vars) *images.Set {
	t.Helper()
	path := t.TempDir()
	file, err := os.Create(path + "/" + images.FileName(images.VarKind, 1))
	check(t, err)
	check(t, images.WriteVars(file, vars))
	check(t, file.Close())
	dir, err := images.OpenDir(path)
	check(t, err)
	t.Cleanup(func() { dir.Close() })
	set, err := dir.Set(images.Auto)
	check(t, err)
	return set
}

// restore returns the limits while objects are made.
func (b *bench) restore(vars *images.Vars, s kind.Situation) (meanwhile [3]int64, err error) {
	img, err := Kind{}.Load(ctx, imageOf(b.t, vars), nil)
	if err != nil {
		return meanwhile, err
	}
	err = b.Space.Run(func(k kernel.Kernel) error {
		p, err := img.Plan(ctx, b.Target, k, kind.Wanted{})
		if err != nil {
			return err
		}
		if err := p.Begin(k, b.Target, s); err != nil {
			return errors.Join(err, p.Undo(k))
		}
		if err := errors.Join(p.Make(ctx, b.Target, k), p.Check(b.Target, k)); err != nil {
			return err
		}
		meanwhile = b.limits()
		return p.Seal(b.Target, k)
	})
	return meanwhile, errors.Join(err, b.Limits.PutBack())
}

func (b *bench) limits() (values [3]int64) {
	k := b.mem.Task(2)
	for i, name := range []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni"} {
		value, err := k.Sysctl(name)
		check(b.t, err)
		values[i] = value[0]
	}
	return values
}

func TestRestore(t *testing.T) {
	needs := kind.Needs{"kernel.msgmax": 20000, "kernel.msgmnb": 40000, "kernel.msgmni": 5}
	raised := [3]int64{20000, 40000, 32000}
	vars := &images.Vars{MsgMax: 100, MsgMnb: 50000, MsgMni: 7}
	for _, c := range []struct {
		name      string
		s         kind.Situation
		meanwhile [3]int64
		after     [3]int64
	}{
		{"empty, nothing needed", kind.Situation{Empty: true}, [3]int64{8192, 16384, 32000}, [3]int64{100, 50000, 7}},
		{"empty", kind.Situation{Empty: true, Needs: needs}, raised, [3]int64{100, 50000, 7}},
		{"not empty, nothing needed", kind.Situation{}, [3]int64{8192, 16384, 32000}, [3]int64{8192, 16384, 32000}},
		{"not empty", kind.Situation{Needs: needs}, raised, [3]int64{8192, 16384, 32000}},
	} {
		b := newBench(t)
		meanwhile, err := b.restore(vars, c.s)
		if err != nil || meanwhile != c.meanwhile || b.limits() != c.after {
			t.Errorf("%s: %v, %d and then %d, want %d and then %d", c.name, err, meanwhile, b.limits(), c.meanwhile, c.after)
		}
	}
}

// Before the objects are sealed a failure leaves the limits as they were.
func TestEachCallFails(t *testing.T) {
	for n := 1; ; n++ {
		b := newBench(t)
		before := b.limits()
		called := ""
		b.mem.Fail = func(call string, m int) error {
			if m == n {
				called = call
				return unix.EPERM
			}
			return nil
		}
		s := kind.Situation{Empty: true, Needs: kind.Needs{"kernel.msgmax": 20000, "kernel.msgmnb": 40000}}
		meanwhile, err := b.restore(&images.Vars{MsgMax: 100, MsgMnb: 200, MsgMni: 300}, s)
		b.mem.Fail = nil
		if called == "" {
			check(t, err)
			if n < 10 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "kernel.msg") && called == "SetSysctl" {
			t.Errorf("call %d (%s): %v, want EPERM and the limit", n, called, err)
		}
		check(t, b.Limits.PutBack())
		if meanwhile == ([3]int64{}) && b.limits() != before {
			t.Errorf("call %d (%s): limits %d, were %d", n, called, b.limits(), before)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		vars images.Vars
		says string
	}{
		{images.Vars{MsgMax: math.MaxInt32, MsgMnb: math.MaxInt32, MsgMni: 1 << 15}, ""},
		{images.Vars{MsgMax: math.MaxInt32 + 1}, "msgmax 2147483648 is above 2147483647"},
		{images.Vars{MsgMnb: math.MaxUint32}, "msgmnb 4294967295 is above 2147483647"},
		{images.Vars{MsgMni: 1<<24 + 1}, "msgmni 16777217 is above 16777216"},
		{images.Vars{MsgMni: 1<<15 + 1}, "this kernel's most is 32768"},
		{images.Vars{MsgMni: 1 << 24}, "this kernel's most is 32768"},
	} {
		b := newBench(t)
		before := b.limits()
		_, err := b.restore(&c.vars, kind.Situation{Empty: true})
		if c.says == "" {
			check(t, err)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || b.limits() != before {
			t.Errorf("%v, limits %d, want %q", err, b.limits(), c.says)
		}
		if isFormat := errors.Is(err, images.ErrFormat); isFormat != strings.Contains(c.says, "above") {
			t.Errorf("%v: a format error is %v", err, isFormat)
		}
	}
}

func TestPlanHasNoObjects(t *testing.T) {
	p := &plan{}
	if p.Steps(func(kind.Action) bool { return true }) != nil || p.Needs() != nil || p.Strangers() != 0 {
		t.Error("sysctls have objects")
	}
}

// On the real kernel, in a namespace of a user namespace of its own.
func TestRoundTripOnLinux(t *testing.T) {
	from, ns := linux.NewSpace(nstest.Fresh(t), nil), nstest.Fresh(t)
	values := map[string]int64{"kernel.msgmax": 4000, "kernel.msgmnb": 70000, "kernel.msgmni": 123}
	check(t, from.Run(func(k kernel.Kernel) error {
		var err error
		for name, value := range values {
			err = errors.Join(err, k.SetSysctl(name, value))
		}
		return err
	}))
	set, err := save(t, from)
	check(t, err)
	to := linux.NewSpace(ns, nil)
	target := &kind.Target{Space: to, Limits: limits.NewKeeper(ns, to)}
	target.Limits.Unshared()
	img, err := Kind{}.Load(ctx, set, nil)
	check(t, err)
	check(t, to.Run(func(k kernel.Kernel) error {
		p, err := img.Plan(ctx, target, k, kind.Wanted{})
		if err != nil {
			return err
		}
		return errors.Join(p.Begin(k, target, kind.Situation{Empty: true}), p.Seal(target, k))
	}))
	check(t, target.Limits.PutBack())
	check(t, to.Run(func(k kernel.Kernel) error {
		for name, value := range values {
			if got, err := k.Sysctl(name); err != nil || got[0] != value {
				t.Errorf("%s is %d, %v, want %d", name, got, err, value)
			}
		}
		return nil
	}))
}
