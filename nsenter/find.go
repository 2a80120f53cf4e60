package nsenter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenIdentity opens the namespace that id names, if it still exists. On Linux
// 6.18 the kernel finds it by its 64-bit id, also one without tasks, if the
// caller has CAP_SYS_ADMIN over its owner. Otherwise it is looked for among the
// tasks in /proc, where one without tasks is not found.
//
// The error matches [ErrGone] if the namespace provably exists no more. Any
// other error leaves that open.
func OpenIdentity(id Identity) (*Namespace, error) {
	n, err := openIdentity(id, kernelID, openHandle)
	if err != nil {
		return nil, fmt.Errorf("find ipc namespace %s of id %d: %w", Link(id.Inode), id.ID, err)
	}
	return n, nil
}

// handleOpener opens a namespace by its id and inode number.
type handleOpener func(id, inode uint64) (int, error)

// errUnknown is returned where nothing was found and nothing is proven.
var errUnknown = errors.New("no task that can be looked at is in it; whether it exists is unknown")

func openIdentity(id Identity, idOf idSource, open handleOpener) (*Namespace, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if id.BootID == "" {
		return nil, errors.New("has no boot id")
	}
	if id.BootID != boot {
		return nil, fmt.Errorf("was made before the last boot: %w", ErrGone)
	}
	if id.ID != 0 {
		n, err := openByHandle(id, idOf, open)
		if err == nil || errors.Is(err, ErrGone) {
			return n, err
		}
	}
	return scanFor(id, idOf)
}

// openByHandle trusts ESTALE only from a caller that may open every namespace:
// the kernel says the same of one that exists and is not the caller's to open
// (fs/exportfs/expfs.c turns the EPERM of nsfs_fh_to_dentry into it).
func openByHandle(id Identity, idOf idSource, open handleOpener) (*Namespace, error) {
	fd, err := open(id.ID, id.Inode)
	if errors.Is(err, unix.ESTALE) && overAllNamespaces() {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	return adoptIf(fd, id, idOf)
}

// adoptIf closes fd again if it is not open on the namespace that id names.
func adoptIf(fd int, id Identity, idOf idSource) (*Namespace, error) {
	if err := checkIPC(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n, err := adopt(fd, 0)
	if err != nil {
		return nil, err
	}
	found, err := n.identityBy(idOf)
	if err == nil && found.Same(id) {
		return n, nil
	}
	n.Close()
	if err != nil {
		return nil, err
	}
	if found.ID != 0 && id.ID != 0 && found.Inode == id.Inode {
		return nil, fmt.Errorf("another has its inode number: %w", ErrGone)
	}
	return nil, errors.New("one with its inode number exists, but no task proves that it is the same")
}

// scanFor looks at the first task that is in a namespace of that inode number:
// no two that exist have the same.
func scanFor(id Identity, idOf idSource) (*Namespace, error) {
	want := Link(id.Inode)
	var found *Namespace
	err := errUnknown
	walkErr := eachProcess(func(proc int, pid string) bool {
		if in, _ := processIn(proc, pid, want); !in {
			return true
		}
		fd, openErr := openInside(proc, pid, id.Inode)
		if openErr != nil {
			return true
		}
		found, err = adoptIf(fd, id, idOf)
		return false
	})
	if walkErr != nil {
		return nil, walkErr
	}
	return found, err
}

// openInside opens the link of the thread whose namespace has that inode.
func openInside(proc int, pid string, inode uint64) (int, error) {
	tids, err := readNames(proc, pid+"/task")
	if err != nil {
		return -1, err
	}
	for _, tid := range tids {
		fd, err := openFD(proc, pid+"/task/"+tid+"/ns/ipc", unix.O_RDONLY)
		if err != nil {
			continue
		}
		if key, err := keyOf(fd); err == nil && key.ino == inode {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, unix.ESRCH
}

// fileidNsfs is FILEID_NSFS of linux/exportfs.h.
const fileidNsfs = 0xf1

// openHandle wraps open_by_handle_at(2) on nsfs, Linux 6.18. The handle is
// struct nsfs_file_handle of linux/nsfs.h: u64 ns_id, u32 ns_type, u32 ns_inum,
// all three of which must be right. Older kernels say EBADF: the descriptor
// FD_NSFS_ROOT is unknown to them.
func openHandle(id, inode uint64) (int, error) {
	var handle [16]byte
	binary.NativeEndian.PutUint64(handle[:], id)
	binary.NativeEndian.PutUint32(handle[8:], unix.CLONE_NEWIPC)
	binary.NativeEndian.PutUint32(handle[12:], uint32(inode))
	fd, err := unix.OpenByHandleAt(unix.FD_NSFS_ROOT, unix.NewFileHandle(fileidNsfs, handle[:]), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_by_handle_at: %w", err)
	}
	return fd, nil
}

// initialUserInode is PROC_USER_INIT_INO of include/linux/proc_ns.h.
const initialUserInode = 0xEFFFFFFD

// InInitialUserNS reports whether the calling thread lives in the user namespace that
// the kernel starts with (user_namespaces(7)); false also where that cannot be looked
// up. It needs no privilege.
func InInitialUserNS() bool {
	key, err := keyAt(unix.AT_FDCWD, "/proc/thread-self/ns/user")
	return err == nil && key.ino == initialUserInode
}

// overAllNamespaces reports whether the calling thread has CAP_SYS_ADMIN in the
// initial user namespace, and so in all.
func overAllNamespaces() bool { return InInitialUserNS() && haveSysAdmin() }

func haveSysAdmin() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
