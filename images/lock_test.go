package images_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

const lockFile = "ipc-cr-lock.ipc-cr-tmp"

// A lock on the directory itself is for everybody to take that may open it, and so
// it is nobody's.
func TestTenantLocksDirectory(t *testing.T) {
	dir := newDir(t)
	tenant, err := os.Open(dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer tenant.Close()
	if err := unix.Flock(int(tenant.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := dir.Lock(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(dir.Path(), lockFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a file that others cannot open", info, err)
	}
}

// Nothing of a lock is left, and what a killed ipc-cr left of one is nobody's.
func TestLockLeavesNothing(t *testing.T) {
	dir := newDir(t)
	if err := os.WriteFile(filepath.Join(dir.Path(), lockFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dir.Lock(), dir.Sweep(), dir.Close()); err != nil {
		t.Fatal(err)
	}
	if left := listing(t, dir.Path()); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A directory that is only to be read is no lock of another's.
func TestLockOfReadOnlyDirectory(t *testing.T) {
	nstest.Require(t, "root")
	p := nstest.Start(t, nil, readOnlyProgram, newDir(t).Path())
	if line, err := p.Stdout.ReadString('\n'); err != nil || !strings.HasSuffix(line, ": create "+lockFile+": permission denied\n") {
		t.Errorf("%q, %v", line, err)
	}
}

// readOnlyProgram DIR says what it is told when it locks a directory of root's as
// another user.
var readOnlyProgram = nstest.Program("images.readonly", func(args []string) {
	dir := must[*images.Dir](nil)(images.OpenDir(args[0]))
	must[struct{}](nil)(struct{}{}, errors.Join(os.Chmod(args[0], 0o755), unix.Setreuid(65534, 65534)))
	fmt.Println(dir.Lock())
})

// What somebody else has put in its place is removed by root, and not followed.
func TestPlantedLock(t *testing.T) {
	nstest.Require(t, "root")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(outside, path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o777) },
		"another's": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o666), os.Chown(path, 1000, 1000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			if err := plant(filepath.Join(dir.Path(), lockFile)); err != nil {
				t.Fatal(err)
			}
			if err := dir.Lock(); err != nil {
				t.Fatal(err)
			}
			second := must[*images.Dir](t)(images.OpenDir(dir.Path()))
			defer second.Close()
			if err := second.Lock(); !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), "another ipc-cr is writing to it") {
				t.Errorf("second lock: %v", err)
			}
			if text, err := os.ReadFile(outside); string(text) != "precious" {
				t.Errorf("the link's target holds %q, %v", text, err)
			}
		})
	}
}
