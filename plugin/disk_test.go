package plugin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// tmpfs mounts a small file system and returns a directory on it.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	nstest.Require(t, "root")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A restore may leave its image open until the collector closes it.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// memoryDir is a directory in memory where there is one: for tests that write
// very often.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ipc-cr-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// spacious is a namespace whose image has several pages.
func spacious(t *testing.T) (*nsenter.Namespace, []queue) {
	t.Helper()
	page := strings.Repeat("p", os.Getpagesize())
	queues := []queue{aQueue(5, 0x55, page, page, page), aQueue(6, 0x66, "small")}
	ns := nstest.Fresh(t)
	fill(t, ns, queues...)
	return ns, queues
}

// wantDiskError wants an error that names a file of the images directory, and
// nothing left in there.
func wantDiskError(t *testing.T, err error, dir string, errno unix.Errno) {
	t.Helper()
	if !errors.Is(err, errno) {
		t.Errorf("error %v, want %v", err, errno)
	}
	wantFailure(t, err, "checkpoint ipc:[", dir, errno.Error())
}

// A full disk gives a clear error and leaves nothing, whatever the file that no
// longer fits.
func TestDiskFull(t *testing.T) {
	ns, queues := spacious(t)
	was := stateOf(t, ns)
	for pages, done := 0, false; !done; pages++ {
		dir := tmpfs(t, fmt.Sprintf("size=%d", (pages+1)*os.Getpagesize()))
		filler := filepath.Join(dir, "filler")
		writeFile(t, filler, "x") // size=0 would be no limit at all
		_, err := trySave(t, ns, dir)
		wantSame(t, ns, was)
		if done = err == nil; done {
			if pages < 5 {
				t.Errorf("%d pages are enough", pages)
			}
			wantImage(t, dir, queues...)
			continue
		}
		wantDiskError(t, err, dir, unix.ENOSPC)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		wantNoCheckpoint(t, dir)
	}
}

func wantImage(t *testing.T, dir string, queues ...queue) {
	t.Helper()
	ns := nstest.Fresh(t)
	load(t, ns, dir, plugin.Fail)
	wantQueues(t, ns, queues...)
}

func TestNoInodes(t *testing.T) {
	ns, queues := spacious(t)
	for inodes, done := 1, false; !done; inodes++ { // the directory is one
		dir := tmpfs(t, fmt.Sprintf("nr_inodes=%d", inodes))
		_, err := trySave(t, ns, dir)
		if done = err == nil; done {
			wantImage(t, dir, queues...)
			continue
		}
		wantDiskError(t, err, dir, unix.ENOSPC)
		wantNoCheckpoint(t, dir)
	}
}

// With --force, what does not fit costs nothing: the old checkpoint stays whole.
func TestDiskFullKeepsTheOld(t *testing.T) {
	old := aQueue(1, 0x11, "old")
	small := nstest.Fresh(t)
	fill(t, small, old)
	large, _ := spacious(t)
	dir := tmpfs(t, fmt.Sprintf("size=%d", 6*os.Getpagesize()))
	save(t, small, dir)
	_, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: large, Dir: dir, Number: 1, Force: true})
	wantDiskError(t, err, dir, unix.ENOSPC)
	wantImage(t, dir, old)
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("%d files, want 3", len(entries))
	}
}

// Every write that can fail: files may have 0 bytes, 1 byte, and so on.
func TestWriteFails(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), memoryDir(t)
	queues := []queue{aQueue(5, 0x55, "one", "", "three"), aQueue(6, 0, "four")}
	fill(t, ns, queues...)
	was := stateOf(t, ns)
	p := nstest.Start(t, ns, smallFilesProgram, dir)
	errs := 0
	for says := json.NewDecoder(p.Stdout); says.More(); errs++ {
		var text string
		if err := says.Decode(&text); err != nil {
			t.Fatal(err)
		}
		wantFailure(t, errors.New(text), "checkpoint ipc:[", dir+"/ipc", unix.EFBIG.Error())
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	longest := int64(0)
	for _, name := range []string{images.FileName(images.MsgKind, 1), images.FileName(images.VarKind, 1), images.ManifestName(1)} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, info.Size())
	}
	if int64(errs) != longest {
		t.Errorf("%d errors, and the longest file has %d bytes", errs, longest)
	}
	wantSame(t, ns, was)
	wantImage(t, dir, queues...)
}

// A directory that cannot be made or written.
func TestDirectoryRefused(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	base := t.TempDir()
	writeFile(t, filepath.Join(base, "file"), "")
	for _, c := range []struct{ dir, makes, opens string }{
		{"file", "not a directory", "not a directory"},
		{"missing/images", "no such file or directory", "no such file or directory"},
		{"/proc/ipc-cr-images", "make images directory: mkdir /proc/ipc-cr-images: no such file or directory", "no such file or directory"},
	} {
		dir := c.dir
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(base, dir)
		}
		_, err := trySave(t, ns, dir)
		wantFailure(t, err, dir, c.makes)
		_, err = tryLoad(t, ns, dir, plugin.Fail)
		wantFailure(t, err, "open images directory "+dir+": "+c.opens)
	}
}

// A directory that was made for a checkpoint that fails goes with it.
func TestDirectoryAbandoned(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	startMovers(t, ns, "0s")
	nstest.Try(t, func() error {
		base := t.TempDir()
		_, err := trySave(t, ns, filepath.Join(base, "images"))
		if err == nil {
			return errors.New("the kernel let no neighbour run for a second: the copy was accepted")
		}
		wantFailure(t, err, "queue ", kind.ErrChanged.Error(), "5 times", "--freeze")
		wantNoCheckpoint(t, base)
		return nil
	})
}
