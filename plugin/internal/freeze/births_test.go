package freeze

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Where /proc does not tell who was born last, whoever was born unseen may run.
func TestUnseen(t *testing.T) {
	nstest.Require(t, "root")
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(proc.fd)
	proc.fd = procOfTasks(t)
	s, err := newHolder(proc, ns.Inode(), Options{Timeout: defaultTimeout}).start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c.mustRest(t)
	if r := s.Report(); !r.Unseen || r.Rounds < mostLost || r.Tasks == 0 {
		t.Errorf("%+v, want that somebody may be unseen", r)
	}
	mustRelease(t, s)
}

// procOfTasks is a /proc without what is not about tasks.
func procOfTasks(t *testing.T) int {
	t.Helper()
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "subset", "pid"); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// Who was born last is the last word of loadavg; the tasks are directories here.
func TestBirths(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, tid := range []string{"7", "8", "9"} {
		ns := filepath.Join(dir, tid, "ns")
		if err := errors.Join(os.MkdirAll(ns, 0o700), os.Symlink("ipc:[1]", filepath.Join(ns, "ipc"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, last string
		before     int
		caught     bool
		seen       []int
	}{
		{"nobody", "9", 9, true, nil},
		{"three", "9", 6, true, []int{7, 8, 9}},
		{"one has ended", "10", 8, true, []int{9}},
		{"the numbers began anew", "4", 9, false, nil},
		{"too many", "90000", 9, false, nil},
		{"not told", "?", 0, false, nil},
	} {
		if err := os.WriteFile(filepath.Join(dir, "loadavg"), []byte("0.10 0.20 0.30 1/100 "+c.last+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var seen []int
		w := walk{proc: &procfs{fd: fd}, found: func(_, tid int, _ []byte) error { seen = append(seen, tid); return nil }}
		caught, err := w.births(c.before)
		if err != nil || caught != c.caught || !slices.Equal(seen, c.seen) {
			t.Errorf("%s: caught up %t, %v, seen %v; want %t, %v", c.name, caught, err, seen, c.caught, c.seen)
		}
	}
}
