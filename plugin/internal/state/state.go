// Package state is the directory in which ipc-cr notes what must be known after
// its own end: /run/ipc-cr for root, $XDG_RUNTIME_DIR/ipc-cr for others. What is
// in it is about the running system and worthless after a reboot, so nothing is
// synced to disk.
//
// A file here is believed, later, by a process with more privileges than the
// one that could have planted it. So the directory is a real one, of the
// caller's own and closed to everybody else, or it is refused; it is used
// through one descriptor, and no symbolic link is followed.
//
// It is not the place for anything that belongs to a checkpoint: that goes to
// the images directory.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNowhere says that there is no place for a state directory: neither /run
// nor $XDG_RUNTIME_DIR can be written, as in a user namespace.
var ErrNowhere = errors.New("no state directory: neither /run nor $XDG_RUNTIME_DIR can be written")

// ErrUntrusted marks a directory or a file in it that somebody else owns or can
// change.
var ErrUntrusted = errors.New("not to be trusted")

// dirName is the directory's name under /run or $XDG_RUNTIME_DIR.
const dirName = "ipc-cr"

// Dir is an open state directory. Its methods may be called from several
// goroutines at once. They act with the credentials of the calling thread,
// which must be the ones the directory was opened with.
type Dir struct {
	fd   int
	path string
}

// Default opens the state directory of this process and makes it if need be.
// ErrNowhere if there is no place for one, ErrUntrusted if somebody else made
// it.
func Default() (*Dir, error) {
	path := Place()
	if path == "" {
		return nil, ErrNowhere
	}
	return Open(path)
}

// Existing is Default without making the directory: ErrNowhere too if it is not
// there.
func Existing() (*Dir, error) {
	path := Place()
	if path == "" {
		return nil, ErrNowhere
	}
	dir, err := open(path)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNowhere
	}
	return dir, err
}

// Place is the path of Default's directory, which need not be there, or empty.
func Place() string {
	if unix.Geteuid() == 0 && writable("/run") {
		return filepath.Join("/run", dirName)
	}
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if filepath.IsAbs(runtimeDir) && writable(runtimeDir) {
		return filepath.Join(runtimeDir, dirName)
	}
	return ""
}

// writable asks the kernel instead of reading the mode: the root of a user
// namespace has no rights over the host's /run, whatever its own uid says.
func writable(path string) bool {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// Open opens the state directory at path, an absolute one, and makes it if need
// be; its parent must exist. ErrUntrusted if it is not a directory, belongs to
// another user than the effective one, or is open to others.
func Open(path string) (*Dir, error) {
	if err := unix.Mkdir(path, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make state directory %s: %w", path, err)
	}
	return open(path)
}

func open(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("state directory %s: %w: not a directory (no link is followed): remove it", path, ErrUntrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory %s: %w", path, err)
	}
	if err := trust(fd, path); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &Dir{fd: fd, path: path}, nil
}

// trust judges the open directory, which nobody can exchange any more.
func trust(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat state directory %s: %w", path, err)
	}
	if euid := unix.Geteuid(); int(st.Uid) != euid {
		return fmt.Errorf("state directory %s: %w: belongs to uid %d, not to uid %d: look at it, then remove it",
			path, ErrUntrusted, st.Uid, euid)
	}
	if open := st.Mode & 0o077; open != 0 {
		return fmt.Errorf("state directory %s: %w: mode %#o is open to others: look at it, then chmod 0700 %s",
			path, ErrUntrusted, st.Mode&0o7777, path)
	}
	return nil
}

// Path is the directory's path, for messages and for another process that has
// to open it.
func (d *Dir) Path() string { return d.path }

// Join is the path of a file in the directory, for messages.
func (d *Dir) Join(name string) string { return filepath.Join(d.path, name) }

// Close closes the directory.
func (d *Dir) Close() error { return unix.Close(d.fd) }
