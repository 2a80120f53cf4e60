package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tempSuffix marks a file that is being written. One that no process holds
// locked is what a killed ipc-cr left.
const tempSuffix = ".ipc-cr-tmp"

// Dir is an images directory, used through one descriptor: what its path names
// later does not matter.
type Dir struct {
	file    *os.File
	path    string
	created bool
}

// OpenDir opens an images directory.
func OpenDir(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open images directory %s: %w", path, err)
	}
	return &Dir{file: os.NewFile(uintptr(fd), path), path: path}, nil
}

// MakeDir opens an images directory and makes it, for its owner alone, where it
// does not exist. Its parent must.
func MakeDir(path string) (*Dir, error) {
	err := os.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make images directory: %w", err)
	}
	dir, openErr := OpenDir(path)
	if openErr == nil {
		dir.created = err == nil
	}
	return dir, openErr
}

// Path returns the path the directory was opened with.
func (d *Dir) Path() string { return d.path }

// Close closes the directory.
func (d *Dir) Close() error { return d.file.Close() }

// Abandon removes the directory if MakeDir made it, it is empty, and its path
// still names it.
func (d *Dir) Abandon() {
	if !d.created {
		return
	}
	ours, err := d.file.Stat()
	if err != nil {
		return
	}
	if named, err := os.Lstat(d.path); err == nil && os.SameFile(ours, named) {
		_ = unix.Rmdir(d.path)
	}
}

// lockPatience is how long Lock waits. A guard that a killed ipc-cr was just
// starting shares its parent's lock until its exec (flock(2)).
const lockPatience = 500 * time.Millisecond

// Lock keeps other ipc-cr processes from writing to the directory until Close.
func (d *Dir) Lock() error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(d.fd(), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock images directory %s: %w", d.path, err)
		case time.Now().After(deadline):
			return fmt.Errorf("images directory %s: another ipc-cr is writing to it, still after %v: %w", d.path, lockPatience, err)
		}
	}
}

// Sweep removes the temporaries that a killed ipc-cr left. The directory must be
// locked.
func (d *Dir) Sweep() error {
	names, err := d.readNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, tempSuffix) {
			continue
		}
		if err := unix.Unlinkat(d.fd(), name, 0); err != nil {
			return fmt.Errorf("remove the leftover %s: %w", d.join(name), err)
		}
	}
	return nil
}

// Holds returns the names of the files of namespace number n that are in the
// directory, the JSON file included.
func (d *Dir) Holds(n uint32) ([]string, error) {
	names, err := d.names()
	return ofNumber(names, n), err
}

// Numbers returns the numbers of the namespaces whose images are in the
// directory, in ascending order, the incomplete ones included.
func (d *Dir) Numbers() ([]uint32, error) {
	names, err := d.names()
	return numbersOf(names), err
}

// ofNumber returns those of the names that belong to namespace number n.
func ofNumber(names []string, n uint32) []string {
	manifest := ManifestName(n)
	of := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, number, ok := ParseFileName(name)
		return name != manifest && (!ok || number != n)
	})
	slices.Sort(of)
	return of
}

func numbersOf(names []string) []uint32 {
	var numbers []uint32
	for _, name := range names {
		if _, n, ok := ParseFileName(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// Open opens a file of the directory for reading. Only a regular file is ever
// opened: a symlink, a FIFO or a device is refused, and never waited for.
func (d *Dir) Open(name string) (*os.File, int64, error) {
	handle, err := d.handle(name)
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: d.join(name), Err: err}
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return nil, 0, &fs.PathError{Op: "stat", Path: d.join(name), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, fmt.Errorf("%s is %s, not a regular file", d.join(name), fileType(st.Mode))
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", handle), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: d.join(name), Err: err}
	}
	return os.NewFile(uintptr(fd), d.join(name)), st.Size, nil
}

// WritableBy tells who beside uid and root may change what the directory
// holds: "" if nobody.
func (d *Dir) WritableBy(uid uint32) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return "", fmt.Errorf("stat images directory %s: %w", d.path, err)
	}
	switch {
	case st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0:
		return "everybody", nil
	case st.Mode&0o002 != 0:
		return "everybody, new files only", nil
	case st.Mode&0o020 != 0 && d.hasACL(): // whose mask the mode shows for the group (acl(5))
		return "whom its access control list names", nil
	case st.Mode&0o020 != 0:
		return fmt.Sprintf("group %d", st.Gid), nil
	case st.Uid != 0 && st.Uid != uid:
		return fmt.Sprintf("its owner, uid %d", st.Uid), nil
	}
	return "", nil
}

func (d *Dir) hasACL() bool {
	_, err := unix.Fgetxattr(d.fd(), "system.posix_acl_access", nil)
	return err == nil
}

func (d *Dir) fd() int { return int(d.file.Fd()) }

func (d *Dir) join(name string) string { return filepath.Join(d.path, name) }

// readNames lists the directory as it is.
func (d *Dir) readNames() ([]string, error) {
	if _, err := d.file.Seek(0, 0); err != nil {
		return nil, fmt.Errorf("read images directory %s: %w", d.path, err)
	}
	names, err := d.file.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read images directory %s: %w", d.path, err)
	}
	return names, nil
}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFBLK, unix.S_IFCHR:
		return "a device"
	}
	return "no regular file"
}
