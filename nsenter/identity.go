package nsenter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Identity names a namespace across time. Inode numbers alone do not: a dead
// namespace's is given to the next one. The zero ID means that the kernel has
// none to give (before Linux 6.18); then the tasks in the namespace stand for
// it, as long as one of them is still there.
type Identity struct {
	BootID string `json:"boot_id"`         // /proc/sys/kernel/random/boot_id
	ID     uint64 `json:"ns_id,omitempty"` // NS_GET_ID, not reused until reboot
	Inode  uint64 `json:"inode"`
	Tasks  []Task `json:"tasks,omitempty"` // only without ID
}

// Same reports whether a and b are proven to be one namespace: same boot and
// same 64-bit id, or, where either lacks the id, same boot, same inode number
// and a task that is in both. False means different or not proven.
func (a Identity) Same(b Identity) bool {
	if a.BootID == "" || a.BootID != b.BootID {
		return false
	}
	if a.ID != 0 && b.ID != 0 {
		return a.ID == b.ID
	}
	return a.Inode == b.Inode && a.shareTask(b)
}

func (a Identity) shareTask(b Identity) bool {
	return slices.ContainsFunc(a.Tasks, func(t Task) bool { return slices.Contains(b.Tasks, t) })
}

// Identity returns what tells n from every other namespace, now and later. On
// kernels before 6.18 it looks through all of /proc for the tasks inside, and
// tasks that the caller cannot look at cannot stand for it.
func (n *Namespace) Identity() (Identity, error) { return n.identityBy(kernelID) }

// idSource gives the 64-bit id of an open namespace, 0 where there is none.
type idSource func(fd int) (uint64, error)

func (n *Namespace) identityBy(idOf idSource) (Identity, error) {
	id := Identity{Inode: n.key.ino}
	var err error
	if id.BootID, err = bootID(); err != nil {
		return Identity{}, fmt.Errorf("identity of %s: %w", n, err)
	}
	if id.ID, err = idOf(n.Fd()); err != nil {
		return Identity{}, fmt.Errorf("identity of %s: %w", n, err)
	}
	if id.ID != 0 {
		return id, nil
	}
	id.Tasks, _, err = Tasks(n)
	return id, err
}

var bootID = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
})

// ID returns the kernel's 64-bit id of the namespace, which is not reused until
// reboot; 0 on kernels before 6.18, which give none. It needs no privilege.
func (n *Namespace) ID() (uint64, error) {
	id, err := kernelID(n.Fd())
	if err != nil {
		return 0, fmt.Errorf("id of %s: %w", n, err)
	}
	return id, nil
}

// kernelID wraps the ioctl NS_GET_ID of linux/nsfs.h, Linux 6.18. Kernels that
// do not know it say ENOTTY.
func kernelID(fd int) (uint64, error) {
	var id uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_ID, uintptr(unsafe.Pointer(&id)))
	if errno == unix.ENOTTY {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("ioctl NS_GET_ID: %w", errno)
	}
	return id, nil
}

// ErrGone says that a namespace is proven to exist no more.
var ErrGone = errors.New("the ipc namespace is gone")
