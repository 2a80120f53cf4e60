package nsenter

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HostInode is the inode number of the IPC namespace that the kernel starts
// with: PROC_IPC_INIT_INO of include/linux/proc_ns.h, IPC_NS_INIT_INO of
// linux/nsfs.h since 6.18. It is never given to another.
const HostInode = 0xEFFFFFFF

// IsHost reports whether this is the host's IPC namespace: the one the kernel
// started with, or the one that process 1 is in, where that may be looked at.
// Inside a pid namespace process 1 is the container's, and so is what counts as
// the host's. An unreadable link of process 1 is no error, it says nothing.
func (n *Namespace) IsHost() bool {
	if n.key.ino == HostInode {
		return true
	}
	init, err := keyAt(unix.AT_FDCWD, "/proc/1/ns/ipc")
	return err == nil && init == n.key
}

// Name names an IPC namespace for people, by its inode number and by what IsHost
// reported of it: "ipc:[4026532177]", or with words where every program of the
// host may be using it, which a bare number does not show.
func Name(inode uint64, host bool) string {
	switch {
	case inode == HostInode:
		return fmt.Sprintf("the host's IPC namespace (%s)", Link(inode))
	case host:
		return fmt.Sprintf("the IPC namespace of process 1, which counts as the host's (%s)", Link(inode))
	}
	return Link(inode)
}
