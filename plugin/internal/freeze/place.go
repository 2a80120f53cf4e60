package freeze

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// statePlace has the locks in the state directory.
type statePlace struct{ dir *state.Dir }

func (p *statePlace) try(w *want) (release func() error, err error) {
	lock, err := p.dir.TryLock(w.name(), w.shared)
	if errors.Is(err, state.ErrBusy) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, err
	}
	return lock.Release, nil
}

func (p *statePlace) holder(w *want) string { return p.dir.LockHolder(w.name()) }

func (p *statePlace) passable(time.Duration) bool { return false }

// nsfsPatience is longer than an ipc-cr without a state directory holds a lock: it
// stops tasks for 10 s at most.
const nsfsPatience = 12 * time.Second

// nsfsPlace takes the locks on the namespaces' own files (flock(2) on nsfs), which
// is possible everywhere. But every process in the namespace can take them too,
// and keep them. So no more is waited than another ipc-cr can need: then the lock
// is somebody else's, and does not count.
type nsfsPlace struct{ patience time.Duration }

func newNsfsPlace() *nsfsPlace { return &nsfsPlace{patience: nsfsPatience} }

func (p *nsfsPlace) try(w *want) (release func() error, err error) {
	// Locks belong to an open file description, so that this is one of its own.
	file, err := os.Open("/proc/self/fd/" + strconv.Itoa(w.ns.Fd()))
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if w.shared {
		how = unix.LOCK_SH
	}
	err = unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
	if err == nil {
		return file.Close, nil
	}
	_ = file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, ErrLocked
	}
	return nil, os.NewSyscallError("flock", err)
}

func (p *nsfsPlace) holder(w *want) string { return state.FlockHolder(w.ns.Inode()) }

func (p *nsfsPlace) passable(waited time.Duration) bool { return waited >= p.patience }
