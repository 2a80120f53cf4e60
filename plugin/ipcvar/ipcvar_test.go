package ipcvar

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	pb "github.com/checkpoint-restore/go-criu/v7/crit/images/ipc-var"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/memkernel"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var ctx = context.Background()

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// save writes the image of a namespace's sysctls into a fresh directory.
func save(t testing.TB, space kernel.Space) (*images.Set, error) {
	t.Helper()
	dir, err := images.OpenDir(t.TempDir())
	check(t, err)
	t.Cleanup(func() { dir.Close() })
	stage := dir.Stage(1, os.Geteuid(), os.Getegid())
	err = space.Run(func(k kernel.Kernel) error {
		s, err := Kind{}.Survey(nil, k)
		if err != nil {
			return err
		}
		_, err = s.Copy(ctx, nil, k, stage)
		return err
	})
	if err != nil {
		stage.Discard()
		return nil, err
	}
	check(t, stage.Commit(&images.Manifest{Format: images.ManifestFormat, Number: 1}, nil))
	return dir.Set(images.Auto)
}

// entry reads an image with the types that are generated from CRIU's definition.
func entry(t testing.TB, set *images.Set) *pb.IpcVarEntry {
	t.Helper()
	data, err := os.ReadFile(set.Path(images.VarKind))
	check(t, err)
	if length := binary.LittleEndian.Uint32(data[8:]); int(length) != len(data)-12 {
		t.Fatalf("a record of %d bytes in %d", length, len(data)-12)
	}
	e := &pb.IpcVarEntry{}
	check(t, proto.Unmarshal(data[12:], e))
	return e
}

// fields are the sysctls as CRIU's record holds them, one by one.
func fields(e *pb.IpcVarEntry) map[string]any {
	return map[string]any{
		"kernel.sem": e.SemCtls, "kernel.msgmax": e.MsgCtlmax, "kernel.msgmnb": e.MsgCtlmnb, "kernel.msgmni": e.MsgCtlmni,
		"kernel.auto_msgmni": e.AutoMsgmni, "kernel.shmmax": e.ShmCtlmax, "kernel.shmall": e.ShmCtlall,
		"kernel.shmmni": e.ShmCtlmni, "kernel.shm_rmid_forced": e.ShmRmidForced,
		"fs.mqueue.queues_max": e.MqQueuesMax, "fs.mqueue.msg_max": e.MqMsgMax, "fs.mqueue.msgsize_max": e.MqMsgsizeMax,
		"fs.mqueue.msg_default": e.MqMsgDefault, "fs.mqueue.msgsize_default": e.MqMsgsizeDefault,
		"kernel.msg_next_id": e.MsgNextId, "kernel.sem_next_id": e.SemNextId, "kernel.shm_next_id": e.ShmNextId,
	}
}

func show(value any) string {
	switch v := value.(type) {
	case *uint32:
		if v == nil {
			return "none"
		}
		return fmt.Sprint(*v)
	case *uint64:
		return fmt.Sprint(*v)
	}
	return fmt.Sprint(value)
}

// The table is CRIU's record: every sysctl in the field that is its own, and no
// field without a sysctl.
func TestEachSysctlHasItsField(t *testing.T) {
	mem := memkernel.New()
	want := map[string]string{}
	for i, s := range sysctls {
		value := int64(1000 + i)
		mem.Have(s.name, value)
		want[s.name] = fmt.Sprint(value)
	}
	mem.Have("kernel.sem", 1, 2, 3, 4)
	want["kernel.sem"] = "[1 2 3 4]"
	set, err := save(t, mem)
	check(t, err)
	e := entry(t, set)
	got := fields(e)
	if n := e.ProtoReflect().Descriptor().Fields().Len(); len(got) != n || len(sysctls) != n {
		t.Errorf("%d sysctls, CRIU's record has %d fields", len(sysctls), n)
	}
	for name := range want {
		if show(got[name]) != want[name] {
			t.Errorf("%s is %s in the image, want %s", name, show(got[name]), want[name])
		}
	}
}

// On the real kernel: what /proc says is what the image says.
func TestImageOfAFreshNamespace(t *testing.T) {
	ns := nstest.Fresh(t)
	space := linux.NewSpace(ns, nil)
	check(t, space.Run(func(k kernel.Kernel) error { return k.SetSysctl("kernel.msg_next_id", 4242) }))
	set, err := save(t, space)
	check(t, err)
	got := fields(entry(t, set))
	err = ns.Run(func() error {
		for _, s := range sysctls {
			text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
			if err != nil {
				return err
			}
			want := strings.Join(strings.Fields(string(text)), " ")
			if want == "-1" {
				want = "none"
			}
			if got := strings.Trim(show(got[s.name]), "[]"); got != want {
				t.Errorf("%s is %s in the image, %s in /proc", s.name, got, want)
			}
		}
		return nil
	})
	check(t, err)
	if show(got["kernel.msg_next_id"]) != "4242" {
		t.Errorf("msg_next_id is %s, want 4242", show(got["kernel.msg_next_id"]))
	}
}

func TestNextIDs(t *testing.T) {
	names := []string{"kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id"}
	for _, name := range names {
		mem := memkernel.New()
		mem.Have(name, 0)
		set, err := save(t, mem)
		check(t, err)
		got := fields(entry(t, set))
		for _, other := range names {
			if want := map[bool]string{true: "0", false: "none"}[other == name]; show(got[other]) != want {
				t.Errorf("with %s: %s is %s, want %s", name, other, show(got[other]), want)
			}
		}
	}
}

// A kernel without POSIX message queues.
func TestWithoutMqueue(t *testing.T) {
	mem := memkernel.New()
	for _, s := range sysctls {
		if strings.HasPrefix(s.name, "fs.mqueue.") {
			mem.Have(s.name)
		}
	}
	set, err := save(t, mem)
	check(t, err)
	got := fields(entry(t, set))
	for name, want := range map[string]string{
		"fs.mqueue.queues_max": "0", "fs.mqueue.msg_default": "none", "fs.mqueue.msgsize_default": "none", "kernel.msgmax": "8192",
	} {
		if show(got[name]) != want {
			t.Errorf("%s is %s, want %s", name, show(got[name]), want)
		}
	}
	img, err := Kind{}.Load(ctx, set, nil)
	if err != nil || img.Size() != (kind.Size{}) {
		t.Errorf("load: %v", err)
	}
}

func TestMissingSysctl(t *testing.T) {
	for _, s := range sysctls {
		mem := memkernel.New()
		mem.Have(s.name)
		_, err := save(t, mem)
		if s.optional != (err == nil) || err != nil && (!errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), s.name)) {
			t.Errorf("without %s: %v", s.name, err)
		}
		mem = memkernel.New()
		mem.Fail = func(call string, n int) error {
			if call == "Sysctl" && n == slices.IndexFunc(sysctls, func(o sysctl) bool { return o.name == s.name })+1 {
				return unix.EACCES
			}
			return nil
		}
		if _, err := save(t, mem); !errors.Is(err, unix.EACCES) {
			t.Errorf("%s cannot be read: %v, want EACCES", s.name, err)
		}
	}
}

func TestValuesThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []int64
		fits   bool
	}{
		{"kernel.msgmax", []int64{math.MaxUint32}, true},
		{"kernel.msgmax", []int64{math.MaxUint32 + 1}, false},
		{"kernel.msgmax", []int64{-1}, false},
		{"kernel.msgmax", []int64{1, 2}, false},
		{"kernel.shmmax", []int64{-1}, true}, // an unsigned long
		{"kernel.shmall", []int64{math.MinInt64}, true},
		{"kernel.shmmax", []int64{1, 2}, false},
		{"kernel.shmmni", []int64{-1}, false},
		{"kernel.sem", []int64{1, 2, 3}, false},
		{"kernel.sem", []int64{1, 2, 3, 4, 5}, false},
		{"kernel.sem", []int64{1, -2, 3, 4}, false},
		{"kernel.sem", []int64{1, 2, 3, math.MaxUint32 + 1}, false},
		{"kernel.msg_next_id", []int64{-1}, true},
		{"kernel.msg_next_id", []int64{-2}, false},
		{"kernel.msg_next_id", []int64{-1, -1}, false},
		{"fs.mqueue.msg_default", []int64{math.MaxUint32 + 1}, false},
	} {
		mem := memkernel.New()
		mem.Have(c.name, c.values...)
		_, err := save(t, mem)
		if c.fits != (err == nil) || err != nil && !strings.Contains(err.Error(), "sysctl "+c.name) {
			t.Errorf("%s = %d: %v", c.name, c.values, err)
		}
	}
}

func TestDiff(t *testing.T) {
	look := func(mem *memkernel.Space) kind.Survey {
		s, err := Kind{}.Survey(nil, mem.Task(2))
		check(t, err)
		return s
	}
	base := look(memkernel.New())
	check(t, base.Diff(look(memkernel.New())))
	if base.Busy(0, math.MaxInt64) != "" || base.Size() != (kind.Size{}) {
		t.Error("sysctls are busy, or something to copy")
	}
	for _, s := range sysctls {
		mem := memkernel.New()
		mem.Have(s.name, 77)
		err := base.Diff(look(mem))
		if !errors.Is(err, kind.ErrChanged) || !strings.Contains(err.Error(), s.name) {
			t.Errorf("%s changed: %v", s.name, err)
		}
	}
}

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
		p, err := img.Plan(ctx, b.Target, k, kind.Fail)
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
		p, err := img.Plan(ctx, target, k, kind.Fail)
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
