package linux

import (
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kerneltest"
)

// drop takes capabilities from the calling thread, which ends with the Run it is
// in.
func drop(t testing.TB, capabilities ...uint) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i].Inheritable = 0
	}
	for _, c := range capabilities {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, s kernel.Space, fn func(k kernel.Kernel)) {
	t.Helper()
	if err := s.Run(func(k kernel.Kernel) error { fn(k); return nil }); err != nil {
		t.Fatal(err)
	}
}

func me() kernel.Creator {
	return kernel.Creator{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// A queue of mode 0 is closed to everybody without CAP_IPC_OWNER, its owner
// included; the table and the statistics by index are not.
func TestClosedQueue(t *testing.T) {
	for _, mode := range []uint32{0, 0o111, 0o011} {
		run(t, fresh(t), func(k kernel.Kernel) {
			id, err := k.Create(7, mode, me())
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Send(id, kerneltest.Msgbuf(1, []byte("abc"))); err != nil {
				t.Errorf("send with all capabilities: %v", err)
			}
			drop(t, unix.CAP_IPC_OWNER)
			_, statErr := k.Stat(id)
			_, copyErr := k.Copy(id, make([]byte, 100), 0)
			for call, err := range map[string]error{
				"stat": statErr, "copy": copyErr, "send": k.Send(id, kerneltest.Msgbuf(1, nil)),
			} {
				if !errors.Is(err, unix.EACCES) {
					t.Errorf("mode %#o: %s: %v, want EACCES", mode, call, err)
				}
			}
			var q kernel.Queue
			if err := k.StatIndex(0, &q); err != nil || q.ID != id || q.QNum != 1 {
				t.Errorf("stat by index: %+v, %v", q, err)
			}
			if table, err := k.Table(); err != nil || table.Queues != 1 {
				t.Errorf("table: %+v, %v", table, err)
			}
		})
	}
}

func TestMayRestoreNamesTheCapability(t *testing.T) {
	elsewhere := kernel.Creator{UID: me().UID + 1, GID: me().GID}
	for _, c := range []struct {
		dropped  []uint
		creators []kernel.Creator
		errno    unix.Errno
		says     string
	}{
		{nil, []kernel.Creator{me(), me()}, 0, ""},
		{[]uint{unix.CAP_IPC_OWNER}, nil, unix.EPERM, "CAP_IPC_OWNER"},
		{[]uint{unix.CAP_SETPCAP}, []kernel.Creator{me()}, 0, ""},
		{[]uint{unix.CAP_SYS_ADMIN}, []kernel.Creator{me()}, 0, ""},
		{[]uint{unix.CAP_SYS_ADMIN}, []kernel.Creator{me(), elsewhere}, unix.EPERM, "CAP_SYS_ADMIN"},
		{[]uint{unix.CAP_SETPCAP}, []kernel.Creator{me(), elsewhere}, unix.EPERM, "CAP_SETPCAP"},
		{nil, []kernel.Creator{{UID: math.MaxUint32}}, unix.EINVAL, "4294967295"},
	} {
		run(t, fresh(t), func(k kernel.Kernel) {
			drop(t, c.dropped...)
			err := k.MayRestore(c.creators)
			if c.errno == 0 {
				if err != nil {
					t.Errorf("without %d: %v", c.dropped, err)
				}
				return
			}
			if !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("without %d: %v, want %v and %q", c.dropped, err, c.errno, c.says)
			}
		})
	}
}

// MayRemove says what Remove does.
func TestMayRemove(t *testing.T) {
	elsewhere := kernel.Creator{UID: me().UID + 1, GID: me().GID}
	for _, c := range []struct {
		creator kernel.Creator
		owner   uint32
		dropped []uint
		may     bool
	}{
		{me(), me().UID, []uint{unix.CAP_SYS_ADMIN}, true},
		{me(), elsewhere.UID, []uint{unix.CAP_SYS_ADMIN}, true},
		{elsewhere, me().UID, []uint{unix.CAP_SYS_ADMIN}, true},
		{elsewhere, elsewhere.UID, []uint{unix.CAP_SYS_ADMIN}, false},
		{elsewhere, elsewhere.UID, nil, true},
	} {
		run(t, fresh(t), func(k kernel.Kernel) {
			id, err := k.Create(0, 0o600, c.creator)
			if err == nil {
				err = k.Set(id, kernel.Attr{UID: c.owner, GID: me().GID, Mode: 0o600, QBytes: 100})
			}
			if err != nil {
				t.Fatal(err)
			}
			q, err := k.Stat(id)
			if err != nil {
				t.Fatal(err)
			}
			drop(t, c.dropped...)
			may, does := k.MayRemove(&q), k.Remove(id)
			if (may == nil) != c.may || (does == nil) != c.may {
				t.Errorf("%+v: may %v, does %v", c, may, does)
			}
			if !c.may && (!errors.Is(may, unix.EPERM) || !strings.Contains(may.Error(), "CAP_SYS_ADMIN")) {
				t.Errorf("%v, want EPERM and the capability", may)
			}
		})
	}
}

func TestMayRestoreWithoutNextID(t *testing.T) {
	nstest.Require(t, "root")
	const nobody = 65534
	run(t, fresh(t), func(k kernel.Kernel) {
		// The file is the root's: without its euid only the capabilities count.
		drop(t, unix.CAP_SYS_ADMIN, unix.CAP_CHECKPOINT_RESTORE, unix.CAP_DAC_OVERRIDE)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), nobody, ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
		err := k.MayRestore(nil)
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_CHECKPOINT_RESTORE") {
			t.Errorf("%v, want EPERM and the capability", err)
		}
		if err := k.SetNextID(7); !errors.Is(err, unix.EACCES) {
			t.Errorf("set next id: %v, want EACCES", err)
		}
	})
}

// Without the owner nobody knows as whom to write.
func TestSysctlOfAChildUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	s := child(t)
	run(t, &Space{ns: s.ns}, func(k kernel.Kernel) {
		if err := k.SetSysctl("kernel.msgmax", 9000); !errors.Is(err, unix.EACCES) {
			t.Errorf("as the host's root: %v, want EACCES", err)
		}
	})
	run(t, s, func(k kernel.Kernel) {
		if err := k.SetSysctl("kernel.msgmax", 9000); err != nil {
			t.Errorf("as its own root: %v", err)
		}
		if unix.Geteuid() != 0 {
			t.Errorf("the thread's euid is %d afterwards", unix.Geteuid())
		}
	})
}

func TestOtherKinds(t *testing.T) {
	run(t, fresh(t), func(k kernel.Kernel) {
		for range 3 {
			if _, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, 5, 0o600); errno != 0 {
				t.Fatal(errno)
			}
		}
		if _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); err != nil {
			t.Fatal(err)
		}
		want := kernel.Counts{Semaphores: 3, SharedMemory: 1}
		if got, err := k.OtherKinds(); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	})
}

func TestParseSysctl(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-1": -1, "2147483647": math.MaxInt32, "18446744073692774399": -16777217,
	} {
		if got, err := parseSysctl(text); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]error{
		"": strconv.ErrSyntax, "x": strconv.ErrSyntax, "1.5": strconv.ErrSyntax, "18446744073709551616": strconv.ErrRange,
	} {
		if got, err := parseSysctl(text); !errors.Is(err, want) {
			t.Errorf("%q: %d, %v, want %v", text, got, err, want)
		}
	}
}
