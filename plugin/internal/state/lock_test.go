package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func mustLock(t *testing.T, d *Dir, name string, shared bool) *Lock {
	t.Helper()
	l, err := d.TryLock(name, shared)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Those who share keep out one that wants it alone, and that one everybody.
func TestLock(t *testing.T) {
	dir := openTemp(t)
	first, second := mustLock(t, dir, "a", true), mustLock(t, dir, "a", true)
	if _, err := dir.TryLock("a", false); !errors.Is(err, ErrBusy) {
		t.Errorf("beside a share: %v, want ErrBusy", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.TryLock("a", false); !errors.Is(err, ErrBusy) {
		t.Errorf("beside the other share: %v, want ErrBusy", err)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
	alone := mustLock(t, dir, "a", false)
	for _, shared := range []bool{false, true} {
		if _, err := dir.TryLock("a", shared); !errors.Is(err, ErrBusy) {
			t.Errorf("shared %t: %v, want ErrBusy", shared, err)
		}
	}
	other := mustLock(t, dir, "b", false)
	if err := errors.Join(alone.Release(), other.Release()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir.Path()); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// One that waits gets it, gives up in time and says whom it waited for, or is
// told to stop.
func TestAwaitLock(t *testing.T) {
	dir := openTemp(t)
	p := nstest.Start(t, nil, lockProgram, dir.Path())
	if line, err := p.Stdout.ReadString('\n'); err != nil || line != "locked\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, err := dir.AwaitLock(t.Context(), "a", "the thing", time.Millisecond)
	want := fmt.Sprintf("lock the thing: claimed by another process: process %d (", p.PID())
	if !errors.Is(err, ErrBusy) || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "has it, still after 1ms") {
		t.Errorf("%v, want %q", err, want)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("no time"))
	defer cancel()
	_, err = dir.AwaitLock(ctx, "a", "the thing", time.Minute)
	if want := fmt.Sprintf("lock the thing: claimed by another process: wait for process %d (", p.PID()); !errors.Is(err, ErrBusy) || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), ": no time") {
		t.Errorf("%v, want %q", err, want)
	}
	got := make(chan error)
	go func() {
		l, err := dir.AwaitLock(context.Background(), "a", "the thing", time.Minute)
		got <- errors.Join(err, l.Release())
	}()
	p.Kill() // a process takes its locks with it
	if err := <-got; err != nil {
		t.Error(err)
	}
}

var lockProgram = nstest.Program("state.lock", func(args []string) {
	dir, err := Open(args[0])
	if err == nil {
		_, err = dir.TryLock("a", false)
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("locked")
	os.Stdin.Read(make([]byte, 1))
})

// The last one removes the file while others come and go: two never have it.
func TestLockAmongMany(t *testing.T) {
	dir := openTemp(t)
	var inside, taken atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 500 {
				l, err := dir.AwaitLock(t.Context(), "a", "the thing", time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) > 1 {
					t.Error("two have it")
				}
				taken.Add(1)
				inside.Add(-1)
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if taken.Load() != 2000 {
		t.Errorf("taken %d times", taken.Load())
	}
}

// A file that was removed between open and lock is nobody's lock.
func TestLockOfARemovedFile(t *testing.T) {
	dir := openTemp(t)
	l := mustLock(t, dir, "a", false)
	defer l.Release()
	if err := dir.Remove("a" + LockSuffix); err != nil {
		t.Fatal(err)
	}
	if err := l.take(false); !errors.Is(err, errReplaced) {
		t.Errorf("%v, want errReplaced", err)
	}
	mustLock(t, dir, "a", false) // the name is free
}

// What somebody else planted is refused; a directory that is gone is no lock
// that somebody has, to be waited for.
func TestLockRefuses(t *testing.T) {
	dir := openTemp(t)
	for name, c := range map[string]struct {
		plant func(path string) error
		want  error
	}{
		"link":      {func(path string) error { return os.Symlink("/etc/passwd", path) }, ErrUntrusted},
		"fifo":      {func(path string) error { return unix.Mkfifo(path, 0o600) }, ErrUntrusted},
		"directory": {func(path string) error { return os.Mkdir(path, 0o700) }, unix.EISDIR},
	} {
		path := dir.Join(name + LockSuffix)
		if err := c.plant(path); err != nil {
			t.Fatal(err)
		}
		if _, err := dir.AwaitLock(t.Context(), name, "it", time.Minute); !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v and the path", name, err, c.want)
		}
	}
	if err := os.RemoveAll(dir.Path()); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.AwaitLock(t.Context(), "a", "it", time.Minute); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("without a directory: %v", err)
	}
}

// watchCreation returns a descriptor of which files that are made in the directory can
// be read (inotify(7)).
func watchCreation(t *testing.T, dir *Dir) int {
	t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(watch) })
	if _, err := unix.InotifyAddWatch(watch, dir.Path(), unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	return watch
}

// What a killed holder left is swept, and nothing else.
func TestSweepLocks(t *testing.T) {
	dir := openTemp(t)
	held := mustLock(t, dir, "held", true)
	defer held.Release()
	for _, name := range []string{"killed" + LockSuffix, "lock"} {
		if err := dir.Create(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	names, err := dir.Names()
	if err != nil {
		t.Fatal(err)
	}
	watch := watchCreation(t, dir)
	dir.SweepLocks(append(names, "removed meanwhile"+LockSuffix))
	if n, err := unix.Read(watch, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a lock was made by sweeping: %d bytes of events, %v", n, err)
	}
	left, err := dir.Names()
	slices.Sort(left)
	if want := []string{"held" + LockSuffix, "lock"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, %v, want %q", left, err, want)
	}
}
