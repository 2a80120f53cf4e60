package nsenter

import "golang.org/x/sys/unix"

// initialInode is the inode number of the IPC namespace the kernel starts with:
// PROC_IPC_INIT_INO of include/linux/proc_ns.h, IPC_NS_INIT_INO of
// linux/nsfs.h since 6.18. It is never given to another.
const initialInode = 0xEFFFFFFF

// IsHost reports whether this is the host's IPC namespace: the one the kernel
// started with, or the one that process 1 is in, where that may be looked at.
// Inside a pid namespace process 1 is the container's, and so is what counts as
// the host's. An unreadable link of process 1 is no error, it says nothing.
func (n *Namespace) IsHost() bool {
	if n.key.ino == initialInode {
		return true
	}
	init, err := keyAt(unix.AT_FDCWD, "/proc/1/ns/ipc")
	return err == nil && init == n.key
}
