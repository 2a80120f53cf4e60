package nsenter_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

func TestOpenPath(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/proc/self/ns/ipc", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/proc/self/ns/ipc", link} {
		mustBeSame(t, opened(t)(nsenter.OpenPath(path)), current(t))
	}
}

func TestOpenPathRefuses(t *testing.T) {
	dir := t.TempDir()
	file, fifo, socket := filepath.Join(dir, "file"), filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	listen(t, socket)
	for path, kind := range map[string]string{
		file:                   "is a regular file",
		dir:                    "is a directory",
		fifo:                   "is a FIFO",
		socket:                 "is a socket",
		"/dev/null":            "is a character device",
		"/proc/self/ns/net":    "is a network namespace",
		"/proc/self/ns/mnt":    "is a mount namespace",
		"/proc/self/ns/pid":    "is a pid namespace",
		"/proc/self/ns/user":   "is a user namespace",
		"/proc/self/ns/uts":    "is a uts namespace",
		"/proc/self/ns/cgroup": "is a cgroup namespace",
		"/proc/self/ns/time":   "is a time namespace",
	} {
		_, err := nsenter.OpenPath(path)
		if err == nil || !strings.Contains(err.Error(), kind) || !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: got %v, want EINVAL and %q", path, err, kind)
		}
	}
}

func TestOpenPathMissing(t *testing.T) {
	dangling := filepath.Join(t.TempDir(), "dangling")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", dangling, "/nonexistent"} {
		if _, err := nsenter.OpenPath(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", path, err)
		}
	}
}

func TestOpenDenied(t *testing.T) {
	nstest.Require(t, "userns")
	p, _ := startReady(t, nil, progWait)
	for name, open := range map[string]func() (*nsenter.Namespace, error){
		"OpenPID":  func() (*nsenter.Namespace, error) { return nsenter.OpenPID(p.PID()) },
		"OpenPath": func() (*nsenter.Namespace, error) { return nsenter.OpenPath(procPath(p.PID(), "ns/ipc")) },
	} {
		err := withoutPrivilege(t, func() error { _, err := open(); return err })
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestClosed(t *testing.T) {
	n := current(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, err := n.Same(n); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Same: %v", err)
	}
	if err := n.Run(func() error { return nil }); !errors.Is(err, unix.EBADF) {
		t.Errorf("Run: %v", err)
	}
	if n.Fd() != -1 || n.Handle().IsOpen() {
		t.Errorf("Fd %d, Handle %s", n.Fd(), n.Handle())
	}
}

func listen(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
}
