package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LockSuffix ends the names of the files that locks are taken on.
const LockSuffix = ".lock"

// lockInterval is the pause between two tries of AwaitLock.
const lockInterval = 5 * time.Millisecond

// Lock is a lock of this process on a name, until Release or its death
// (flock(2)). Its file is in the state directory, which nobody else may enter: a
// lock on a file that others can open is theirs to take, and to keep.
type Lock struct {
	dir  *Dir
	file *os.File
	name string
}

// TryLock takes the lock of a name, shared with others who share it, or alone.
// ErrBusy if somebody has it otherwise. Two locks of one process exclude each
// other like those of two.
func (d *Dir) TryLock(name string, shared bool) (*Lock, error) {
	for {
		l, err := d.tryLock(name+LockSuffix, shared)
		if !errors.Is(err, errReplaced) {
			return l, err
		}
	}
}

// AwaitLock is TryLock that waits for a lock of its own until ctx ends, or for
// that long: then it is ErrBusy, and names the process that has the lock. what
// says what is locked, for the message.
func (d *Dir) AwaitLock(ctx context.Context, name, what string, wait time.Duration) (*Lock, error) {
	for deadline := time.Now().Add(wait); ; {
		l, err := d.TryLock(name, false)
		if !errors.Is(err, ErrBusy) {
			return l, err
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("lock %s: %w: %s has it, still after %v", what, ErrBusy, d.LockHolder(name), wait)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w: wait for %s, which has it: %w", what, ErrBusy, d.LockHolder(name), context.Cause(ctx))
		case <-time.After(lockInterval):
		}
	}
}

// errReplaced says that a lock's last holder removed the file that was locked.
var errReplaced = errors.New("the lock's file was removed meanwhile")

func (d *Dir) tryLock(name string, shared bool) (*Lock, error) {
	return d.lockFile(name, unix.O_CREAT, shared)
}

func (d *Dir) lockFile(name string, create int, shared bool) (*Lock, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDWR|create|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Join(name), explainOpen(err))
	}
	l := &Lock{dir: d, file: os.NewFile(uintptr(fd), d.Join(name)), name: name}
	err = d.trustFile(fd, name)
	if err == nil {
		err = l.take(shared)
	}
	if err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

// take locks the file, which must still be the one of its name.
func (l *Lock) take(shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	fd := int(l.file.Fd())
	if err := unix.Flock(fd, how|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return fmt.Errorf("lock %s: %w", l.file.Name(), err)
	}
	named, err := l.dir.names(fd, l.name)
	if err == nil && !named {
		err = errReplaced
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.file.Name(), err)
	}
	return nil
}

// names reports whether an open file is the one of that name.
func (d *Dir) names(fd int, name string) (bool, error) {
	var open, named unix.Stat_t
	if err := unix.Fstat(fd, &open); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	err := unix.Fstatat(d.fd, name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("fstatat", err)
	}
	return open.Dev == named.Dev && open.Ino == named.Ino, nil
}

// Release gives the lock up. Its last holder removes the file: one that is
// waiting for it takes a new one. A nil Lock is none.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	var err error
	if unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		var ours bool
		if ours, err = l.dir.names(int(l.file.Fd()), l.name); ours {
			err = l.dir.Remove(l.name)
		}
	}
	return errors.Join(err, l.file.Close())
}

// LockHolder names a process that has the lock of a name, for messages.
func (d *Dir) LockHolder(name string) string {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name+LockSuffix, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return unseen
	}
	return FlockHolder(st.Ino)
}

// unseen is a holder that is in another pid namespace, or has just ended.
const unseen = "a process that is not to be seen"

// FlockHolder names a process that has a lock of flock(2) on a file of that inode
// number, for messages, by /proc/locks (proc_locks(5)).
func FlockHolder(inode uint64) string {
	table, err := os.Open("/proc/locks")
	if err != nil {
		return unseen
	}
	defer table.Close()
	file := ":" + strconv.FormatUint(inode, 10)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		field := strings.Fields(lines.Text()) // 1: FLOCK  ADVISORY  WRITE 4744 00:1a:1042 0 EOF
		if len(field) >= 6 && field[1] == "FLOCK" && strings.HasSuffix(field[5], file) {
			comm, _ := os.ReadFile("/proc/" + field[4] + "/comm")
			return fmt.Sprintf("process %s (%q)", field[4], strings.TrimSpace(string(comm)))
		}
	}
	return unseen
}

// SweepLocks removes the files of locks that nobody has: a holder that was
// killed could not.
func (d *Dir) SweepLocks(names []string) {
	for _, name := range names {
		if strings.HasSuffix(name, LockSuffix) {
			if l, err := d.lockFile(name, 0, false); err == nil {
				_ = l.Release()
			}
		}
	}
}

// explainOpen tells what is no file from what cannot be opened.
func explainOpen(err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%w: not a regular file", ErrUntrusted)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state directory was removed: %w", err)
	}
	return err
}
