package nsenter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenPath opens the IPC namespace that path names: a task's link such as
// /proc/PID/ns/ipc, or a file that Pin or mount --bind made. Anything else is
// refused with an error that says what it is; a FIFO is never waited for and
// no device is opened. Reading another user's task link needs CAP_SYS_PTRACE.
func OpenPath(path string) (*Namespace, error) {
	fd, err := openNamespaceFile(path, 0)
	if err != nil {
		return nil, fmt.Errorf("open ipc namespace %q: %w", path, err)
	}
	return adopt(fd, 0)
}

// openNamespaceFile opens path for good only when it is known to be harmless:
// O_PATH opens neither the FIFO nor the device, and the second open goes
// through that descriptor, so nobody can exchange the file in between.
func openNamespaceFile(path string, flags int) (int, error) {
	look, err := openFD(unix.AT_FDCWD, path, unix.O_PATH|flags)
	if err != nil {
		return -1, explainOpen(err)
	}
	defer unix.Close(look)
	return reopenNamespace(look)
}

// reopenNamespace turns an O_PATH descriptor into one that setns(2) takes.
func reopenNamespace(look int) (int, error) {
	if err := checkNsfs(look); err != nil {
		return -1, err
	}
	fd, err := openFD(unix.AT_FDCWD, fdPath(look), unix.O_RDONLY)
	if err != nil {
		return -1, explainOpen(err)
	}
	if err := checkIPC(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// fdPath is the magic link that leads to fd itself, whatever its name is now.
// Descriptors are the process's, so /proc/self serves every thread.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// explainOpen adds the remedy where the kernel's reason is known: the links
// are guarded by a ptrace access check (ptrace(2), PTRACE_MODE_READ_FSCREDS).
func explainOpen(err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (needs CAP_SYS_PTRACE over the task, or to be the same user with no capability less)", err)
	}
	return err
}

// checkNsfs refuses what is no namespace file at all.
func checkNsfs(fd int) error {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return &notIPCError{fileKind(st.Mode)}
	}
	var fs unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &fs) }); err != nil {
		return fmt.Errorf("fstatfs: %w", err)
	}
	if uint32(fs.Type) != unix.NSFS_MAGIC {
		return &notIPCError{fileKind(st.Mode)}
	}
	return nil
}

// checkIPC refuses namespaces of another type. NS_GET_NSTYPE is ioctl_ns(2),
// Linux 4.11.
func checkIPC(fd int) error {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return fmt.Errorf("ioctl NS_GET_NSTYPE: %w", err)
	}
	if kind != unix.CLONE_NEWIPC {
		return &notIPCError{namespaceKind(kind)}
	}
	return nil
}

// notIPCError says what a file is that was taken for an IPC namespace. It
// matches EINVAL, which is what setns(2) says of such a descriptor.
type notIPCError struct{ kind string }

func (e *notIPCError) Error() string { return "is " + e.kind + ", not an ipc namespace" }
func (e *notIPCError) Unwrap() error { return unix.EINVAL }

func fileKind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFBLK:
		return "a block device"
	case unix.S_IFLNK:
		return "a symbolic link"
	}
	return "an anonymous file"
}

func namespaceKind(kind int) string {
	switch kind {
	case unix.CLONE_NEWNET:
		return "a network namespace"
	case unix.CLONE_NEWNS:
		return "a mount namespace"
	case unix.CLONE_NEWPID:
		return "a pid namespace"
	case unix.CLONE_NEWUSER:
		return "a user namespace"
	case unix.CLONE_NEWUTS:
		return "a uts namespace"
	case unix.CLONE_NEWCGROUP:
		return "a cgroup namespace"
	case unix.CLONE_NEWTIME:
		return "a time namespace"
	}
	return fmt.Sprintf("a namespace of type %#x", kind)
}
