package images_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// commitUnsynced commits generation 2 where the disk takes everything but the
// named file; "." is the directory.
func commitUnsynced(t *testing.T, dir *images.Dir, name string) {
	t.Helper()
	stage := dir.Stage(1, os.Geteuid(), os.Getegid())
	defer stage.Discard()
	if err := errors.Join(generation(2).files(stage), stage.Describe(generation(2).manifest(1), nil)); err != nil {
		t.Fatal(err)
	}
	fd := descriptor(t, filepath.Join(dir.Path(), name))
	var err error
	nstest.Failing(t, unix.EIO, fd, []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC}, func() { err = stage.Commit() })
	if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), filepath.Join(dir.Path(), name)+":") {
		t.Errorf("got %v, want EIO of %s", err, name)
	}
}

// descriptor returns that by which this process has a file open.
func descriptor(t *testing.T, path string) uint32 {
	t.Helper()
	want := must[os.FileInfo](t)(os.Stat(path))
	for _, name := range listing(t, "/proc/self/fd") {
		if got, err := os.Stat("/proc/self/fd/" + name); err == nil && os.SameFile(got, want) {
			return uint32(must[int](t)(strconv.Atoi(name)))
		}
	}
	t.Fatalf("%s is not open", path)
	return 0
}

// A file gets its name, and what was there before goes, when all files are on the
// disk: a power failure would else leave a checkpoint of empty files.
func TestFileIsNotSynced(t *testing.T) {
	for _, old := range [][]generation{nil, {1}} {
		for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-1.img", "ipc-cr-1.json"} {
			dir := newDir(t, old...)
			before := listing(t, dir.Path())
			commitUnsynced(t, dir, name+".ipc-cr-tmp")
			if diff := diff(before, listing(t, dir.Path())); diff != "" {
				t.Errorf("%s, old %d: %s", name, old, diff)
			}
		}
	}
}

// That the old files are gone has to be on the disk before a new one gets its
// name: after a power failure there might be some of both.
func TestRemovalIsNotSynced(t *testing.T) {
	dir := newDir(t, 1)
	commitUnsynced(t, dir, ".")
	if names := listing(t, dir.Path()); len(names) > 0 {
		t.Errorf("%q are there", names)
	}
}

// A checkpoint whose names are not on the disk is not reported as made.
func TestNamesAreNotSynced(t *testing.T) {
	commitUnsynced(t, newDir(t), ".")
}
