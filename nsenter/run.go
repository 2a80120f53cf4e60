package nsenter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// threadLink is the calling thread's; /proc/self would be the first thread's.
const threadLink = "/proc/thread-self/ns/ipc"

// Run calls fn in the namespace and returns its error. fn runs on an OS thread
// of its own that enters with setns(2) and ends with fn, in a goroutine of its
// own; no other thread is touched. When Run returns the thread has ended.
//
// A panic in fn goes on in the caller as a [*Panic]; runtime.Goexit in fn, and
// so a test's FailNow, ends the caller's goroutine. A process that fn starts
// lives in the namespace; it must not ask for a parent death signal, which is
// sent when the thread ends (prctl(2), PR_SET_PDEATHSIG). Goroutines that fn
// starts do not run in the namespace. The thread has the credentials of the
// process, not what the caller's own thread has changed them to.
//
// Entering needs CAP_SYS_ADMIN in the caller's user namespace and in the one
// that owns the namespace. Nothing is needed to run in the namespace that the
// process is in already.
func (n *Namespace) Run(fn func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return fmt.Errorf("enter %s: %w", n, err)
		}
		return fn()
	})
}

// enter moves the calling thread. setns(2) asks for privileges even to stay: who
// lacks them may be there already. That is looked up last, because the links of a
// new thread take longer than all the rest.
func (n *Namespace) enter() error {
	err := unix.Setns(n.Fd(), unix.CLONE_NEWIPC)
	switch {
	case errors.Is(err, unix.EPERM) && n.isCurrent():
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("setns: %w (needs CAP_SYS_ADMIN, in the user namespace that owns it too: run as root, or enter that user namespace first)", err)
	case err != nil:
		return fmt.Errorf("setns: %w", err)
	}
	return nil
}

// isCurrent reports whether the calling thread is in the namespace.
func (n *Namespace) isCurrent() bool {
	current, err := keyAt(unix.AT_FDCWD, threadLink)
	return err == nil && current == n.key
}

// Current opens the IPC namespace of the calling thread. It needs no privilege.
func Current() (*Namespace, error) {
	fd, err := openFD(unix.AT_FDCWD, threadLink, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open the current ipc namespace: %w", err)
	}
	return adopt(fd, 0)
}

// New makes a fresh IPC namespace, owned by the caller's user namespace, and
// opens it. The caller stays where it is, and no task lives in the new one: it
// ends with Close unless something else holds it by then. It needs
// CAP_SYS_ADMIN (unshare(2)).
func New() (*Namespace, error) {
	var n *Namespace
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
			return explainUnshare(err)
		}
		n, err = Current()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make an ipc namespace: %w", err)
	}
	return n, nil
}

func explainUnshare(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("unshare: %w (needs CAP_SYS_ADMIN: run as root, or under `unshare -Ur`)", err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("unshare: %w (the limit user.max_ipc_namespaces is reached)", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("unshare: %w (kernel without CONFIG_IPC_NS)", err)
	}
	return fmt.Errorf("unshare: %w", err)
}
