package nsenter

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is an open IPC namespace. The descriptor keeps the namespace alive
// until Close, whatever becomes of its tasks. A Namespace may be used from
// several goroutines at once; only Close must wait until the others are done.
type Namespace struct {
	handle netns.NsHandle
	key    nsKey
	pid    int // the process it was opened through, 0 for none: a hint for Owner
}

// nsKey tells two namespaces apart as long as both are held open: nsfs gives
// each a unique inode, but hands a dead one's number out again at once.
type nsKey struct{ dev, ino uint64 }

// adopt takes ownership of fd, which must be open on an IPC namespace.
func adopt(fd, pid int) (*Namespace, error) {
	key, err := keyOf(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ipc namespace: fstat: %w", err)
	}
	return &Namespace{handle: netns.NsHandle(fd), key: key, pid: pid}, nil
}

func keyOf(fd int) (nsKey, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) })
	return newKey(&st), err
}

// keyAt follows the magic link at path below dirfd, such as "ns/user".
func keyAt(dirfd int, path string) (nsKey, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(dirfd, path, &st, 0) })
	return newKey(&st), err
}

func newKey(st *unix.Stat_t) nsKey {
	return nsKey{dev: uint64(st.Dev), ino: st.Ino}
}

// Close releases the descriptor. A namespace that nothing else holds ends with
// it, and all its objects with it. A second Close returns [os.ErrClosed].
func (n *Namespace) Close() error {
	if !n.handle.IsOpen() {
		return fmt.Errorf("close %s: %w", n, os.ErrClosed)
	}
	if err := n.handle.Close(); err != nil {
		return fmt.Errorf("close %s: %w", n, err)
	}
	return nil
}

// Handle returns the descriptor as a handle. It stays the Namespace's own: do
// not close it, and do not use it after Close.
func (n *Namespace) Handle() netns.NsHandle { return n.handle }

// Fd returns the descriptor as a number, -1 after Close. It is close-on-exec;
// to hand it to a child process put os.NewFile of a duplicate into
// exec.Cmd.ExtraFiles.
func (n *Namespace) Fd() int { return int(n.handle) }

// Inode returns the namespace's inode number in nsfs. It is unique among the
// namespaces that exist now; a dead one's number is reused at once, so to
// compare across time use Identity.
func (n *Namespace) Inode() uint64 { return n.key.ino }

// Link returns what readlink(2) says of the ns/ipc link of a task that is in the
// namespace, "ipc:[4026532177]" (namespaces(7)). It is for comparing; String is
// for people.
func (n *Namespace) Link() string { return Link(n.key.ino) }

// Link is Namespace.Link for a namespace of that inode number, also where none is
// open. It looks nothing up.
func Link(inode uint64) string { return fmt.Sprintf("ipc:[%d]", inode) }

// String names the namespace for people, as Name does.
func (n *Namespace) String() string { return Name(n.Inode(), n.IsHost()) }

// Same reports whether n and o are one namespace. Both being open, device and
// inode number are proof. It fails with [os.ErrClosed] if either is closed.
func (n *Namespace) Same(o *Namespace) (bool, error) {
	if !n.handle.IsOpen() || !o.handle.IsOpen() {
		return false, fmt.Errorf("compare %s with %s: %w", n, o, os.ErrClosed)
	}
	return n.key == o.key, nil
}

// ignoringEINTR repeats a call that a signal interrupted. The Go runtime
// preempts goroutines with signals.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openFD wraps openat(2) with O_CLOEXEC.
func openFD(dirfd int, path string, flags int) (int, error) {
	fd := -1
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Openat(dirfd, path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}
