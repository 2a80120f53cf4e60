package freeze

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process stops the tasks of the namespace, or those
// of another one and must not be stopped itself.
var ErrLocked = errors.New("another process stops its tasks")

// lockInterval is the pause between two tries.
const lockInterval = 5 * time.Millisecond

// Lock is the right to stop the tasks of one IPC namespace. Who calls All has
// taken it first: a process that works in the namespace is among its tasks, and
// two that stop each other stand still for ever.
//
// So it has two sides: the namespace's lock for this process alone, and a share
// in the locks of the namespaces that this process's threads are in, which keeps
// others from stopping them meanwhile. The host's namespace is never stopped, and
// its lock not taken.
//
// The threads are those at the moment of TakeLock: one that enters a namespace
// later is not covered. Two holders in one process exclude each other like any
// two, if one's thread is in the other's namespace.
//
// They are locks of flock(2) on the namespaces' own files, which need no place and
// no privilege, and end with the process. Processes in the namespace can take it
// as well and so keep their namespace from being frozen, as they can by tracing
// each other.
type Lock struct{ files []lockFile }

// lockFile is a namespace's file and how it is to be locked.
type lockFile struct {
	*os.File
	inode uint64
	how   int
}

// TakeLock waits for the lock of the IPC namespace that is open as fd until ctx
// ends, or for that long; then it is ErrLocked, and names who has it.
func TakeLock(ctx context.Context, fd int, wait time.Duration) (*Lock, error) {
	l := &Lock{}
	err := l.open(fd)
	if err == nil {
		err = l.wait(ctx, wait)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the ipc namespace: %w", err), l.Release())
	}
	return l, nil
}

func (l *Lock) open(fd int) error {
	if err := l.add("/proc/self/fd/"+strconv.Itoa(fd), unix.LOCK_EX); err != nil {
		return err
	}
	threads, err := ownThreads()
	if err != nil {
		return err
	}
	for _, thread := range threads {
		// EACCES, too: of a thread that ends in that moment (proc_ns_get_link).
		err := l.add("/proc/self/task/"+thread.Name()+"/ns/ipc", unix.LOCK_SH)
		if err != nil && !ended(err) && !errors.Is(err, unix.EACCES) {
			return err
		}
	}
	slices.SortFunc(l.files, func(a, b lockFile) int { return cmp.Compare(a.inode, b.inode) })
	return nil
}

// ownThreads lists the threads of this process, again where one that ends has cut
// the list short (next_tid in fs/proc/base.c): a directory has two links more.
func ownThreads() (threads []os.DirEntry, err error) {
	const dir = "/proc/self/task"
	for range looks {
		if threads, err = os.ReadDir(dir); err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return nil, os.NewSyscallError("stat", err)
		}
		if len(threads) >= int(st.Nlink)-2 {
			break
		}
	}
	return threads, nil
}

// add opens a namespace's file, unless it is there already or the host's. Locks
// belong to an open file description (flock(2)).
func (l *Lock) add(path string, how int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return errors.Join(os.NewSyscallError("fstat", err), file.Close())
	}
	if st.Ino == hostInode || slices.ContainsFunc(l.files, func(f lockFile) bool { return f.inode == st.Ino }) {
		return file.Close()
	}
	l.files = append(l.files, lockFile{file, st.Ino, how})
	return nil
}

func (l *Lock) wait(ctx context.Context, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; {
		taken, err := l.try()
		switch {
		case err != nil, taken == nil:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%w: ipc:[%d]: %s, still after %v", ErrLocked, taken.inode, holderOf(taken.inode), wait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, which stops the tasks of ipc:[%d]: %w", holderOf(taken.inode), taken.inode, context.Cause(ctx))
		case <-time.After(lockInterval):
		}
	}
}

// try takes all locks or none, and returns one that somebody else has: who waits
// has none that another may wait for. All take them in one order, or two could
// take one each and give it up again for ever.
func (l *Lock) try() (taken *lockFile, err error) {
	for i, f := range l.files {
		err := unix.Flock(int(f.Fd()), f.how|unix.LOCK_NB)
		if err == nil {
			continue
		}
		for _, has := range l.files[:i] {
			_ = unix.Flock(int(has.Fd()), unix.LOCK_UN)
		}
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			return &l.files[i], nil
		}
		return nil, os.NewSyscallError("flock", err)
	}
	return nil, nil
}

// Release gives the lock up, when all tasks are let go. A nil lock is none.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	l.files = nil
	return errors.Join(errs...)
}

// holderOf names a process that has a lock, from /proc/locks (proc(5)).
func holderOf(inode uint64) string {
	table, err := os.Open("/proc/locks")
	if err != nil {
		return "unknown"
	}
	defer table.Close()
	file := ":" + strconv.FormatUint(inode, 10)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		field := strings.Fields(lines.Text()) // 1: FLOCK  ADVISORY  WRITE 4744 00:04:4026531839 0 EOF
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], file) {
			continue
		}
		name, _ := os.ReadFile("/proc/" + field[4] + "/comm")
		return fmt.Sprintf("process %s (%q)", field[4], strings.TrimSpace(string(name)))
	}
	return "unknown"
}
