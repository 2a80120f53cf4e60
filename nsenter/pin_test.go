package nsenter_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// inMountNamespace runs fn on a thread with a mount namespace of its own, so
// that pins can be made without root and never outlive the test.
func inMountNamespace(t *testing.T, fn func() error) {
	t.Helper()
	nstest.Require(t, "userns")
	err := current(t).Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		return fn()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	inMountNamespace(t, func() error {
		first := opened(t)(nsenter.New())
		want, err := first.Identity()
		if err != nil {
			return err
		}
		if err := first.Pin(path); err != nil {
			return err
		}
		first.Close()
		again := opened(t)(nsenter.OpenPath(path))
		if got, err := again.Identity(); err != nil || got.Inode != want.Inode || got.ID != want.ID {
			t.Errorf("pinned %+v, want %+v (%v)", got, want, err)
		}
		if err := again.Pin(path); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "pinned there") {
			t.Errorf("second pin: %v", err)
		}
		if err := nsenter.Unpin(path); err != nil {
			return err
		}
		_, err = os.Lstat(path)
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Unpin: %v", err)
		}
		return nil
	})
}

func TestPinOnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inMountNamespace(t, func() error {
		ns := current(t)
		if err := ns.Pin(path); err != nil {
			return err
		}
		mustBeSame(t, opened(t)(nsenter.OpenPath(path)), ns)
		return nsenter.Unpin(path)
	})
}

func TestPinRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	errs := []error{
		os.WriteFile(path("full"), []byte("x"), 0o600),
		os.WriteFile(path("target"), nil, 0o600),
		os.Symlink("target", path("link")),
		unix.Mkfifo(path("fifo"), 0o600),
		os.Mkdir(path("dir"), 0o700),
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	inMountNamespace(t, func() error {
		ns := current(t)
		for _, name := range []string{"full", "link", "fifo", "dir"} {
			may, err := nsenter.MayPin(path(name)), ns.Pin(path(name))
			if !errors.Is(err, os.ErrExist) || !errors.Is(may, os.ErrExist) {
				t.Errorf("Pin %s: %v, MayPin: %v", name, err, may)
			}
			if err := nsenter.Unpin(path(name)); !errors.Is(err, unix.EINVAL) {
				t.Errorf("Unpin %s: %v", name, err)
			}
			if _, err := os.Lstat(path(name)); err != nil {
				t.Errorf("%s was removed: %v", name, err)
			}
		}
		for _, name := range []string{"", "/", dir + "/", dir + "/..", path("none/pin")} {
			if may, err := nsenter.MayPin(name), ns.Pin(name); may == nil || err == nil {
				t.Errorf("Pin %q: %v, MayPin: %v", name, err, may)
			}
		}
		return nil
	})
}

// MayPin says yes where Pin does, and changes nothing.
func TestMayPin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	inMountNamespace(t, func() error {
		for _, is := range []bool{false, true} { // without the file, and with it
			if err := nsenter.MayPin(path); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); (err == nil) != is {
				t.Errorf("the file is there: %t, %v", is, err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}

// Where the kernel refuses the mount, or the file, both say so.
func TestMayPinIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pin")
	inMountNamespace(t, func() error {
		ns := current(t)
		refused := func(name string, want error) {
			t.Helper()
			may, err := nsenter.MayPin(path), ns.Pin(path)
			if !errors.Is(may, want) || !errors.Is(err, want) {
				t.Errorf("%s: Pin: %v, MayPin: %v, want %v", name, err, may, want)
			}
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: left behind: %v", name, err)
			}
		}
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return err
		}
		refused("read-only", unix.EROFS)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
		if err := dropEffective(unix.CAP_SYS_ADMIN); err != nil {
			return err
		}
		refused("without CAP_SYS_ADMIN", unix.EPERM)
		return nil
	})
}

// dropEffective takes a capability from the calling thread, which is not used again.
func dropEffective(capability uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	return unix.Capset(&header, &data[0])
}

func TestUnpinRefusesOtherNamespaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uts")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inMountNamespace(t, func() error {
		if err := unix.Mount("/proc/self/ns/uts", path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := nsenter.Unpin(path); err == nil || !strings.Contains(err.Error(), "is a uts namespace") {
			t.Errorf("got %v", err)
		}
		return unix.Unmount(path, unix.MNT_DETACH)
	})
}

func TestUnpinKeepsFileWithContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	inMountNamespace(t, func() error {
		if err := unix.Mount("/proc/self/ns/ipc", path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := nsenter.Unpin(path); err == nil || !strings.Contains(err.Error(), "not removed") {
			t.Errorf("got %v", err)
		}
		if data, err := os.ReadFile(path); string(data) != "precious" {
			t.Errorf("left %q (%v)", data, err)
		}
		return nil
	})
}

// In the mount namespace of the process, from whatever thread.
func TestPinInTheHostsMounts(t *testing.T) {
	nstest.Require(t, "root")
	path := filepath.Join(t.TempDir(), "pin")
	ns := nstest.Fresh(t)
	if err := ns.Pin(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	mustBeSame(t, opened(t)(nsenter.OpenPath(path)), ns)
	if err := nsenter.Unpin(path); err != nil {
		t.Fatal(err)
	}
}
