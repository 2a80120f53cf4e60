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
	check(t, stage.Describe(&images.Manifest{Format: images.ManifestFormat, Number: 1}, nil))
	check(t, stage.Commit())
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

func TestRecheck(t *testing.T) {
	base, err := Kind{}.Survey(nil, memkernel.New().Task(2))
	check(t, err)
	check(t, base.Recheck(nil, memkernel.New().Task(2)))
	if base.Busy(0, math.MaxInt64, nil) != "" || base.Size() != (kind.Size{}) {
		t.Error("sysctls are busy, or something to copy")
	}
	for _, s := range sysctls {
		mem := memkernel.New()
		mem.Have(s.name, 77)
		err := base.Recheck(nil, mem.Task(2))
		if !errors.Is(err, kind.ErrChanged) || !strings.Contains(err.Error(), s.name) {
			t.Errorf("%s changed: %v", s.name, err)
		}
	}
}
