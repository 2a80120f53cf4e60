package creds

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// onThread runs fn on a thread that ends with it, and that is not the process's
// first.
func onThread(fn func()) {
	here, err := nsenter.Current()
	if err == nil {
		defer here.Close()
		err = here.Run(func() error { fn(); return nil })
	}
	if err != nil {
		panic(err)
	}
}

// ids returns the lines Uid, Gid and CapEff of a thread's status.
func ids(t testing.TB, status string) string {
	t.Helper()
	text, err := os.ReadFile(status)
	if err != nil {
		t.Error(err)
	}
	lines := strings.Split(string(text), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return !strings.HasPrefix(line, "Uid:") && !strings.HasPrefix(line, "Gid:") && !strings.HasPrefix(line, "CapEff:")
	})
	return strings.Join(lines, " ")
}

const mine = "/proc/thread-self/status"

func TestAs(t *testing.T) {
	nstest.Require(t, "root")
	process := fmt.Sprintf("/proc/%d/task/%[1]d/status", os.Getpid())
	onThread(func() {
		before, others := ids(t, mine), ids(t, process)
		failure := errors.New("an error of its own")
		err := As(1000, 1001, func() error {
			want := strings.Replace(before, "Uid:\t0\t0\t0\t0", "Uid:\t0\t1000\t0\t1000", 1)
			want = strings.Replace(want, "Gid:\t0\t0\t0\t0", "Gid:\t0\t1001\t0\t1001", 1)
			if got := ids(t, mine); got != want {
				t.Errorf("inside: %s, want %s", got, want)
			}
			if got := ids(t, process); got != others {
				t.Errorf("another thread: %s, want %s", got, others)
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Errorf("%v, want the function's error", err)
		}
		if got := ids(t, mine); got != before {
			t.Errorf("afterwards: %s, want %s", got, before)
		}
	})
}

func TestAsOneself(t *testing.T) {
	nstest.Require(t, "userns")
	onThread(func() {
		called := false
		err := As(uint32(os.Geteuid()), uint32(os.Getegid()), func() error { called = true; return nil })
		if err != nil || !called {
			t.Errorf("%v, called %v", err, called)
		}
	})
}

func TestAsNobody(t *testing.T) {
	onThread(func() {
		before := ids(t, mine)
		for _, id := range [][2]uint32{{math.MaxUint32, 0}, {0, math.MaxUint32}} {
			err := As(id[0], id[1], func() error { t.Error("called"); return nil })
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("as %d: %v, want EINVAL", id, err)
			}
		}
		if got := ids(t, mine); got != before {
			t.Errorf("afterwards: %s, want %s", got, before)
		}
	})
}

func TestAsOnSeveralThreads(t *testing.T) {
	nstest.Require(t, "root")
	var group sync.WaitGroup
	for i := range uint32(16) {
		group.Go(func() {
			onThread(func() {
				for range 50 {
					err := As(1000+i, 2000+i, func() error {
						if uid, gid := unix.Geteuid(), unix.Getegid(); uid != int(1000+i) || gid != int(2000+i) {
							t.Errorf("ids %d, %d, want %d, %d", uid, gid, 1000+i, 2000+i)
						}
						return nil
					})
					if err != nil || unix.Geteuid() != 0 || unix.Getegid() != 0 {
						t.Errorf("%v, afterwards %d, %d", err, unix.Geteuid(), unix.Getegid())
					}
				}
			})
		})
	}
	group.Wait()
}

// unmappedProgram asks for ids that do not exist in its user namespace. The gid
// of the second is mapped, and must be given back.
var unmappedProgram = nstest.Program("creds.unmapped", func([]string) {
	onThread(func() {
		for _, id := range [][2]uint32{{5000, 5000}, {5000, 7}} {
			err := As(id[0], id[1], func() error { return nil })
			fmt.Println(errors.Is(err, unix.EINVAL), unix.Geteuid(), unix.Getegid())
		}
		fmt.Println(As(7, 8, func() error { return nil }))
	})
})

func TestAsUnmapped(t *testing.T) {
	nstest.Require(t, "root")
	p := nstest.StartInUserNS(t, nil, unmappedProgram)
	for _, want := range []string{"true 0 0", "true 0 0", "<nil>"} {
		line, err := p.Stdout.ReadString('\n')
		if err != nil || strings.TrimSpace(line) != want {
			t.Fatalf("%q, %v, want %q", line, err, want)
		}
	}
}

func TestAsWithoutPrivilege(t *testing.T) {
	nstest.Require(t, "root") // where the ids are mapped
	for capability, says := range map[uint]string{unix.CAP_SETPCAP: "needs CAP_SETPCAP", unix.CAP_SETUID: "setresuid", unix.CAP_SETGID: "setresgid"} {
		onThread(func() {
			drop(t, capability)
			before := ids(t, mine)
			err := As(1000, 1000, func() error { t.Error("called"); return nil })
			if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), says) {
				t.Errorf("without capability %d: %v, want EPERM and %q", capability, err, says)
			}
			if got := ids(t, mine); got != before {
				t.Errorf("afterwards: %s, want %s", got, before)
			}
		})
	}
}

// drop takes a capability from the thread.
func drop(t *testing.T, capability uint) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Error(err)
	}
	for i := range data {
		data[i].Inheritable = 0
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Error(err)
	}
}
