package freeze

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process stops the tasks of the namespace.
var ErrLocked = errors.New("another process stops its tasks")

// lockInterval is the pause between two tries.
const lockInterval = 5 * time.Millisecond

// Lock is the right to stop the tasks of one IPC namespace. Who calls All has
// taken it first: a process that works in the namespace is among its tasks, and
// two that stop each other stand still for ever.
//
// It is a lock of flock(2) on the namespace's own file, which needs no place and
// no privilege, and ends with the process. Processes in the namespace can take it
// as well and so keep their namespace from being frozen, as they can by tracing
// each other.
type Lock struct{ file *os.File }

// TakeLock waits for the lock of the IPC namespace that is open as fd until ctx
// ends, or for that long; then it is ErrLocked, and names who has it.
func TakeLock(ctx context.Context, fd int, wait time.Duration) (*Lock, error) {
	// A new open file description: locks belong to one (flock(2)).
	file, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("lock the ipc namespace: %w", err)
	}
	if err := flock(ctx, file, wait); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the ipc namespace: %w", err), file.Close())
	}
	return &Lock{file}, nil
}

func flock(ctx context.Context, file *os.File, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %s, still after %v", ErrLocked, holderOf(file), wait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockInterval):
		}
	}
}

// Release gives the lock up, when all tasks are let go. A nil lock is none.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}

// holderOf names the process that has the lock, from /proc/locks (proc(5)).
func holderOf(file *os.File) string {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return "unknown"
	}
	inode := strconv.FormatUint(st.Ino, 10)
	table, err := os.Open("/proc/locks")
	if err != nil {
		return "unknown"
	}
	defer table.Close()
	for lines := bufio.NewScanner(table); lines.Scan(); {
		field := strings.Fields(lines.Text()) // 1: FLOCK  ADVISORY  WRITE 4744 00:04:4026531839 0 EOF
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], ":"+inode) {
			continue
		}
		name, _ := os.ReadFile("/proc/" + field[4] + "/comm")
		return fmt.Sprintf("process %s (%q)", field[4], strings.TrimSpace(string(name)))
	}
	return "unknown"
}
