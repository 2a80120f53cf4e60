package images

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file of a directory that its lock is taken on (flock(2)), and that
// only its owner can open. A lock on the directory itself is for everybody to take,
// and to keep, that may open it.
const lockName = "ipc-cr-lock" + tempSuffix

// lockPatience is how long Lock waits. A helper process that a killed ipc-cr was just
// starting shares its parent's lock until its exec.
const lockPatience = 500 * time.Millisecond

// Lock keeps other ipc-cr processes from writing to the directory until Close.
func (d *Dir) Lock() error {
	if d.lock != nil {
		return nil
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err := d.tryLock()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, errPlanted):
			return fmt.Errorf("lock images directory %s: %w", d.path, err)
		case time.Now().After(deadline) && errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("images directory %s: another ipc-cr is writing to it: %w", d.path, err)
		case time.Now().After(deadline):
			return fmt.Errorf("lock images directory %s: %s: %w", d.path, lockName, err)
		}
	}
}

// errPlanted says that the lock's file is not ours, or has just been removed.
var errPlanted = errors.New("it is made by somebody else, again and again")

func (d *Dir) tryLock() error {
	fd, err := unix.Openat(d.fd(), lockName, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EACCES) && d.lockIsThere():
		return d.foreignLock(err)
	case err != nil:
		return fmt.Errorf("create %s: %w", lockName, err)
	}
	file := os.NewFile(uintptr(fd), d.join(lockName))
	if err = d.takeLock(file); err != nil {
		return errors.Join(err, file.Close())
	}
	d.lock = file
	return nil
}

// lockIsThere tells a lock's file that is not ours to open from a directory that is not
// ours to write.
func (d *Dir) lockIsThere() bool {
	var st unix.Stat_t
	return unix.Fstatat(d.fd(), lockName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// takeLock locks the open file, if it is our own and has its name.
func (d *Dir) takeLock(file *os.File) error {
	var open, named unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &open); err != nil {
		return err
	}
	if open.Mode&unix.S_IFMT != unix.S_IFREG || int(open.Uid) != os.Geteuid() {
		return d.foreignLock(unix.EPERM)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	err := unix.Fstatat(d.fd(), lockName, &named, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || named.Ino != open.Ino || named.Dev != open.Dev {
		return errPlanted // the one that had it is done, and has removed it
	}
	return nil
}

// foreignLock removes what somebody else put under the lock's name. Only root can tell
// that it is no lock of an ipc-cr with more privileges.
func (d *Dir) foreignLock(why error) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s belongs to another user, whose ipc-cr is writing there or was killed: %w: remove it if none runs", lockName, why)
	}
	flags := 0
	if errors.Is(why, unix.EISDIR) {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(d.fd(), lockName, flags); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s is no lock of ipc-cr's: remove it: %w", lockName, err)
	}
	return errPlanted
}

func (d *Dir) unlock() error {
	if d.lock == nil {
		return nil
	}
	err := unix.Unlinkat(d.fd(), lockName, 0)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	err = errors.Join(err, d.lock.Close())
	d.lock = nil
	if err != nil {
		return fmt.Errorf("unlock images directory %s: %w", d.path, err)
	}
	return nil
}
