package images_test

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// special makes what is no regular file.
var special = map[string]func(t *testing.T, path string) error{
	"a FIFO":          func(_ *testing.T, path string) error { return unix.Mkfifo(path, 0o600) },
	"a directory":     func(_ *testing.T, path string) error { return os.Mkdir(path, 0o700) },
	"a symbolic link": func(_ *testing.T, path string) error { return os.Symlink("/dev/zero", path) },
	"a device": func(t *testing.T, path string) error {
		nstest.Require(t, "root")
		return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))
	},
	"a socket": func(t *testing.T, path string) error {
		t.Chdir(filepath.Dir(path)) // a socket's path is short
		l, err := net.Listen("unix", filepath.Base(path))
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	},
}

// Under each of our names anything but a regular file is refused, and at once:
// opening a FIFO would wait forever.
func TestOpenRefuses(t *testing.T) {
	for what, make := range special {
		for _, name := range []string{"ipcns-var-1.img", "ipcns-msg-1.img", "ipc-cr-1.json"} {
			t.Run(what+" "+name, func(t *testing.T) {
				dir := newDir(t, 1)
				path := filepath.Join(dir.Path(), name)
				os.Remove(path)
				if err := make(t, path); err != nil {
					t.Fatal(err)
				}
				err := atOnce(t, func() error { _, _, err := dir.Open(name); return err })
				if err == nil || !strings.Contains(err.Error(), path+" is "+what) {
					t.Errorf("Open: %v", err)
				}
				err = atOnce(t, func() error { _, err := load(dir, 1); return err })
				wantError(t, err, path+" is "+what+", not a regular file")
				err = atOnce(t, func() error { return generation(2).save(dir, 1) })
				got, again := load(dir, 1)
				if what == "a directory" { // nothing is written over that
					wantError(t, err, path+": is a directory")
					wantError(t, again, path+" is "+what+", not a regular file")
				} else if err != nil || again != nil || got != 2 {
					t.Errorf("the next checkpoint: %v, generation %d, %v, want 2", err, got, again)
				}
			})
		}
	}
}

// atOnce runs fn, which must not wait for anybody.
func atOnce(t *testing.T, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
		return nil
	}
}

func TestSymlinkToTheRightFile(t *testing.T) {
	dir := newDir(t, 1)
	path := filepath.Join(dir.Path(), "ipcns-msg-1.img")
	if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink("ipcns-msg-1.img.moved", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir, 1); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("got %v", err)
	}
}

func TestHardLinkIsARegularFile(t *testing.T) {
	dir := newDir(t, 1)
	path := filepath.Join(dir.Path(), "ipcns-msg-1.img")
	if err := errors.Join(os.Rename(path, path+".moved"), os.Link(path+".moved", path)); err != nil {
		t.Fatal(err)
	}
	if got, err := load(dir, 1); got != 1 || err != nil {
		t.Errorf("generation %d, %v", got, err)
	}
}

// A leftover temporary of a name that we use must not be followed either.
func TestSweepRemovesLinksNotFiles(t *testing.T) {
	dir := newDir(t)
	outside := filepath.Join(t.TempDir(), "precious")
	if err := errors.Join(os.WriteFile(outside, []byte("precious"), 0o600),
		os.Symlink(outside, filepath.Join(dir.Path(), "ipcns-msg-1.img.ipc-cr-tmp")),
		unix.Mkfifo(filepath.Join(dir.Path(), "ipcns-var-1.img.ipc-cr-tmp"), 0o600)); err != nil {
		t.Fatal(err)
	}
	stage := dir.Stage(1, os.Geteuid(), os.Getegid())
	for _, kind := range []string{images.MsgKind, images.VarKind} {
		if err := atOnce(t, func() error { _, err := stage.Create(kind); return err }); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: %v", kind, err)
		}
	}
	if err := generation(1).save(dir, 1); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(outside); string(text) != "precious" {
		t.Errorf("the link's target holds %q, %v", text, err)
	}
	if got, err := load(dir, 1); got != 1 || err != nil {
		t.Errorf("generation %d, %v", got, err)
	}
}

func TestLock(t *testing.T) {
	dir := newDir(t)
	second := must[*images.Dir](t)(images.OpenDir(dir.Path()))
	defer second.Close()
	if err := dir.Lock(); err != nil {
		t.Fatal(err)
	}
	err := second.Lock()
	if !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), dir.Path()) {
		t.Errorf("second lock: %v", err)
	}
	if err := dir.Lock(); err != nil {
		t.Errorf("its own again: %v", err)
	}
	dir.Close()
	if err := second.Lock(); err != nil {
		t.Errorf("after Close: %v", err)
	}
}

// What the path names later does not matter: all work is done in the directory
// that was opened.
func TestDirectoryIsSwapped(t *testing.T) {
	dir := newDir(t, 1)
	moved := dir.Path() + ".moved"
	if err := errors.Join(os.Rename(dir.Path(), moved), os.Mkdir(dir.Path(), 0o700)); err != nil {
		t.Fatal(err)
	}
	other := must[*images.Dir](t)(images.OpenDir(dir.Path()))
	defer other.Close()
	if err := errors.Join(generation(7).save(other, 1), other.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := load(dir, 1); got != 1 || err != nil {
		t.Errorf("read generation %d, %v, want 1", got, err)
	}
	if err := generation(2).save(dir, 1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]generation{moved: 2, dir.Path(): 7} {
		d := must[*images.Dir](t)(images.OpenDir(path))
		defer d.Close()
		if got, err := load(d, 1); got != want || err != nil {
			t.Errorf("%s: generation %d, %v, want %d", path, got, err, want)
		}
	}
}

func TestMakeDirAndAbandon(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "new")
	make := func() *images.Dir { return must[*images.Dir](t)(images.MakeDir(path)) }
	exists := func() bool { _, err := os.Lstat(path); return err == nil }

	dir := make()
	if info := must[os.FileInfo](t)(os.Stat(path)); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	again := make()
	if again.Abandon(); !exists() {
		t.Error("one that did not make it has removed it")
	}
	write(t, dir, "pages-1.img", nil)
	if dir.Abandon(); !exists() {
		t.Error("removed with a file in it")
	}
	os.Remove(filepath.Join(path, "pages-1.img"))
	if err := errors.Join(os.Rename(path, path+".moved"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if dir.Abandon(); !exists() {
		t.Error("another directory of that name is removed")
	}
	if err := errors.Join(os.Remove(path), os.Rename(path+".moved", path)); err != nil {
		t.Fatal(err)
	}
	if dir.Abandon(); exists() {
		t.Error("left behind")
	}
	dir.Close()
	again.Close()
}

func TestOpenDirRefuses(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	fifo := filepath.Join(root, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600), os.Symlink("nowhere", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		file: unix.ENOTDIR, fifo: unix.ENOTDIR, filepath.Join(root, "none"): unix.ENOENT, filepath.Join(root, "link"): unix.ENOENT,
	} {
		if err := atOnce(t, func() error { _, err := images.OpenDir(path); return err }); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want %v of %s", err, want, path)
		}
	}
	if _, err := images.MakeDir(filepath.Join(root, "none", "below")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the parent is missing", err)
	}
	if _, err := images.MakeDir(filepath.Join(root, "link")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the link leads nowhere", err)
	}
}

func TestWritableBy(t *testing.T) {
	nstest.Require(t, "root")
	for _, c := range []struct {
		mode     uint32
		uid, gid int
		want     string
	}{
		{0o700, 0, 0, ""},
		{0o770, 0, 0, "group 0"},
		{0o777, 0, 0, "everybody"},
		{0o1777, 0, 0, "everybody, new files only"},
		{0o770, 0, 5, "group 5"},
		{0o750, 0, 5, ""},
		{0o700, 1000, 0, "its owner, uid 1000"},
		{0o700, 100000, 0, ""},
	} {
		dir := newDir(t)
		if err := errors.Join(os.Chown(dir.Path(), c.uid, c.gid), unix.Chmod(dir.Path(), c.mode)); err != nil {
			t.Fatal(err)
		}
		if got, err := dir.WritableBy(100000); got != c.want || err != nil {
			t.Errorf("%#o of %d:%d: %q, %v, want %q", c.mode, c.uid, c.gid, got, err, c.want)
		}
	}
}

// An access control list hides who is in it behind the mode's group.
func TestWritableByList(t *testing.T) {
	nstest.Require(t, "root")
	dir := newDir(t)
	const nobodys = 1<<32 - 1                        // id of those entries that have none
	list := binary.LittleEndian.AppendUint32(nil, 2) // POSIX_ACL_XATTR_VERSION
	for _, entry := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, nobodys}, {2, 7, 1000}, {4, 5, nobodys}, {16, 7, nobodys}, {32, 0, nobodys}} { // linux/posix_acl.h
		list = binary.LittleEndian.AppendUint16(list, entry.tag)
		list = binary.LittleEndian.AppendUint16(list, entry.perm)
		list = binary.LittleEndian.AppendUint32(list, entry.id)
	}
	if err := unix.Setxattr(dir.Path(), "system.posix_acl_access", list, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := dir.WritableBy(0); got != "whom its access control list names" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHoldsAndNumbers(t *testing.T) {
	dir := newDir(t)
	for _, name := range []string{
		"ipcns-var-1.img", "ipc-cr-1.json", "ipcns-msg-1.img", "ipcns-shm-10.img", "ipcns-var-4294967295.img", "ipc-cr-7.json",
		"ipcns-var-01.img", "ipcns-var-4294967296.img", "ipcns-var-.img", "ipcns-var-+2.img", "ipcns-var-3.img.ipc-cr-tmp", "ipcns-mq-4.img", "ids-5.img",
	} {
		write(t, dir, name, nil)
	}
	for range 2 { // a directory is read from its beginning each time
		if diff := diff([]uint32{1, 10, 4294967295}, must[[]uint32](t)(dir.Numbers())); diff != "" {
			t.Error(diff)
		}
		want := []string{"ipc-cr-1.json", "ipcns-msg-1.img", "ipcns-var-1.img"}
		if diff := diff(want, must[[]string](t)(dir.Holds(1))); diff != "" {
			t.Error(diff)
		}
	}
	if got := must[[]string](t)(dir.Holds(2)); len(got) != 0 {
		t.Errorf("number 2: %q", got)
	}
}

func TestOpenIsForReading(t *testing.T) {
	dir := newDir(t, 1)
	f, size, err := dir.Open("ipcns-var-1.img")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data := must[[]byte](t)(io.ReadAll(f)); int64(len(data)) != size || f.Name() != filepath.Join(dir.Path(), "ipcns-var-1.img") {
		t.Errorf("%d bytes of %s, want %d", len(data), f.Name(), size)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, unix.EBADF) {
		t.Errorf("write: %v", err)
	}
	if _, _, err := dir.Open("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
