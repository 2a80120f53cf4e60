package nsenter_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

func threadLink(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestRunIsInside(t *testing.T) {
	ns := nstest.Fresh(t)
	want := errors.New("its error")
	var inside string
	err := ns.Run(func() error {
		inside = threadLink(t)
		return want
	})
	if err != want || inside != ns.Link() {
		t.Errorf("in %s with error %v, want %s and its error", inside, err, ns)
	}
}

// Many at once, so that the runtime has reason to use every thread it has, the
// first one included.
func TestRunLeavesThreadsAlone(t *testing.T) {
	home := threadLink(t)
	ns := nstest.Fresh(t)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if err := ns.Run(func() error { runtime.Gosched(); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if tids := threadsElsewhere(t, home); len(tids) > 0 {
		t.Errorf("threads %v are not in %s", tids, home)
	}
	if link, _ := os.Readlink("/proc/self/ns/ipc"); link != home {
		t.Errorf("the process shows as in %s, want %s", link, home)
	}
}

func TestRunEndsItsThread(t *testing.T) {
	ns := nstest.Fresh(t)
	for range 200 {
		tid := 0
		if err := ns.Run(func() error { tid = unix.Gettid(); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := unix.Tgkill(os.Getpid(), tid, 0); err != unix.ESRCH {
			t.Fatalf("thread %d is there: %v", tid, err)
		}
	}
}

func threadsElsewhere(t *testing.T, home string) (tids []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		link, err := os.Readlink("/proc/self/task/" + entry.Name() + "/ns/ipc")
		if err == nil && link != home {
			tids = append(tids, entry.Name())
		}
	}
	return tids
}

func TestRunPanics(t *testing.T) {
	ns := nstest.Fresh(t)
	defer func() {
		p, ok := recover().(*nsenter.Panic)
		if !ok || p.Value != fs.ErrInvalid || !errors.Is(p, fs.ErrInvalid) {
			t.Fatalf("recovered %v", p)
		}
		text := p.Error()
		if !strings.HasPrefix(text, "invalid argument\n") || !strings.Contains(text, "panickingInside") {
			t.Errorf("does not show value and stack: %s", text)
		}
	}()
	ns.Run(panickingInside)
	t.Error("Run returned")
}

func panickingInside() error { panic(fs.ErrInvalid) }

func TestRunGoexits(t *testing.T) {
	ns := nstest.Fresh(t)
	returned := false
	var caller sync.WaitGroup
	caller.Go(func() {
		ns.Run(func() error { runtime.Goexit(); return nil })
		returned = true
	})
	caller.Wait()
	if returned {
		t.Error("Run returned")
	}
}

// What needs privileges says so; Run at home needs none. It is a process of its
// own without privileges: Run's thread does not have those of the caller's.
func TestWithoutPrivileges(t *testing.T) {
	ns := nstest.Fresh(t)
	var inside, p *nstest.Process
	err := ns.Run(func() error {
		if err := dropPrivilege(); err != nil {
			return err
		}
		inside = nstest.Start(t, nil, progWait)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(t.TempDir(), "pin")
	err = withoutPrivilege(t, func() error {
		p = nstest.Start(t, nil, progUnprivileged, strconv.Itoa(inside.PID()), pin)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"home: <nil>",
		"enter: .* operation not permitted .*CAP_SYS_ADMIN",
		"new: .* operation not permitted .*unshare -Ur",
		"pin: .* operation not permitted .*CAP_SYS_ADMIN",
		"unpin: .*no such file", // it went with the failed mount
	} {
		line, err := p.Stdout.ReadString('\n')
		if err != nil || !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("got %q (%v), want %s", line, err, want)
		}
	}
}

func tryAll(args []string) {
	pid, _ := strconv.Atoi(args[0])
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		fmt.Println(err)
		return
	}
	home, _ := nsenter.Current()
	nothing := func() error { return nil }
	fmt.Println("home:", home.Run(nothing))
	fmt.Println("enter:", ns.Run(nothing))
	_, err = nsenter.New()
	fmt.Println("new:", err)
	fmt.Println("pin:", ns.Pin(args[1]))
	fmt.Println("unpin:", nsenter.Unpin(args[1]))
}

func BenchmarkRun(b *testing.B) {
	ns := nstest.Fresh(b)
	for b.Loop() {
		if err := ns.Run(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
