package freeze

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// ErrLocked says that another process stops the tasks of the namespace, or those
// of another one and must not be stopped itself.
var ErrLocked = errors.New("another process stops its tasks")

// lockInterval is the pause between two tries.
const lockInterval = 5 * time.Millisecond

// Lock is the right to stop the tasks of one IPC namespace. A caller of All has
// taken it first: a process that works in the namespace is among its tasks, and
// two that stop each other never run again.
//
// So it has two sides: the namespace's lock for this process alone, and a share
// in the locks of the namespaces that this process's threads are in, which keeps
// others from stopping them meanwhile. The host's namespace is never stopped, and
// its lock not taken.
//
// The threads are those at the moment of TakeLock: one that enters a namespace
// later is not covered. Two holders in one process exclude each other like any
// two, if one's thread is in the other's namespace.
type Lock struct{ held []func() error }

// TakeLock waits for the lock of an IPC namespace until ctx ends, or for that
// long; then it is ErrLocked, and names the process that has it.
//
// The locks are files of the state directory, which must stay open until Release:
// a tenant of the namespace cannot get at them. Without one (dir is nil, as in a
// user namespace) they are the namespaces' own files; see nsfsPlace.
func TakeLock(ctx context.Context, dir *state.Dir, ns *nsenter.Namespace, wait time.Duration) (*Lock, error) {
	wants, err := wantsOf(ns)
	defer closeAll(wants, ns)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", ns, err)
	}
	var p place = &statePlace{dir}
	if dir == nil {
		p = newNsfsPlace()
	}
	l := &Lock{}
	if err := l.wait(ctx, p, wants, wait); err != nil {
		return nil, fmt.Errorf("lock %s: %w", ns, err)
	}
	return l, nil
}

// want is a namespace of which a lock is wanted.
type want struct {
	ns     *nsenter.Namespace
	id     uint64
	shared bool
}

// name is that of the lock in the state directory.
func (w *want) name() string {
	return "freeze-" + state.NamespaceName(w.id, w.ns.Inode())
}

// wantsOf returns the namespace, and those that the threads of this process are
// in. All processes take their locks in one order, or two could take one each and
// give it up again without end.
func wantsOf(ns *nsenter.Namespace) (wants []want, err error) {
	if wants, err = addWant(nil, want{ns: ns}); err != nil {
		return wants, err
	}
	threads, err := ownThreads()
	if err != nil {
		return wants, err
	}
	for _, thread := range threads {
		home, err := nsenter.OpenPath("/proc/self/task/" + thread.Name() + "/ns/ipc")
		// EACCES, too: of a thread that ends in that moment (proc_ns_get_link).
		if ended(err) || errors.Is(err, unix.EACCES) {
			continue
		}
		if err != nil {
			return wants, err
		}
		if wants, err = addWant(wants, want{ns: home, shared: true}); err != nil {
			return wants, err
		}
	}
	slices.SortFunc(wants, func(a, b want) int { return cmp.Compare(a.ns.Inode(), b.ns.Inode()) })
	return wants, nil
}

// addWant leaves out the host's, and what is there already.
func addWant(wants []want, w want) ([]want, error) {
	known := slices.ContainsFunc(wants, func(o want) bool { return o.ns.Inode() == w.ns.Inode() })
	if !known && w.ns.Inode() != nsenter.HostInode {
		var err error
		w.id, err = w.ns.ID()
		return append(wants, w), err
	}
	if w.shared {
		_ = w.ns.Close()
	}
	return wants, nil
}

func closeAll(wants []want, but *nsenter.Namespace) {
	for _, w := range wants {
		if w.ns != but {
			_ = w.ns.Close()
		}
	}
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

// place is where locks are taken.
type place interface {
	// try takes a lock. ErrLocked if another process has it.
	try(w *want) (release func() error, err error)
	// holder names a process that has it, for messages.
	holder(w *want) string
	// passable reports whether a process that has waited for that long may go on
	// without the lock.
	passable(waited time.Duration) bool
}

func (l *Lock) wait(ctx context.Context, p place, wants []want, wait time.Duration) error {
	for began := time.Now(); ; {
		taken, err := l.try(p, wants)
		waited := time.Since(began)
		switch {
		case err != nil, taken == nil, p.passable(waited):
			return err
		case waited >= wait:
			return fmt.Errorf("%w: %s: %s, still after %v", ErrLocked, taken.ns, p.holder(taken), wait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, which stops the tasks of %s: %w", p.holder(taken), taken.ns, context.Cause(ctx))
		case <-time.After(lockInterval):
		}
	}
}

// try takes all locks or none, and returns one that somebody else has: a process
// that waits has none that another may wait for.
func (l *Lock) try(p place, wants []want) (taken *want, err error) {
	for i := range wants {
		release, err := p.try(&wants[i])
		if err == nil {
			l.held = append(l.held, release)
			continue
		}
		if back := l.Release(); back != nil {
			return nil, errors.Join(err, back)
		}
		if errors.Is(err, ErrLocked) {
			return &wants[i], nil
		}
		return nil, err
	}
	return nil, nil
}

// Release gives the lock up, when all tasks are let go. A nil lock is none.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, release := range l.held {
		errs = append(errs, release())
	}
	l.held = nil
	return errors.Join(errs...)
}
