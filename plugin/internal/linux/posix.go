package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The size of the root directory of a mqueue file system: 20 bytes for each name
// in it, "." and ".." included (DIRENT_SIZE in ipc/mqueue.c).
const direntSize, emptySize = 20, 40

// errShape says that the kernel counts in another way than we know.
var errShape = errors.New("the size of the mqueue directory is no count")

func (t *thread) POSIXQueues() (n int, err error) {
	held, err := Capabilities()
	if err != nil {
		return 0, err
	}
	if held&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return 0, fmt.Errorf("needs CAP_SYS_ADMIN over the namespace: %w", unix.EPERM)
	}
	n, err = countPOSIX()
	if errors.Is(err, unix.EPERM) {
		n, err = t.space.countApart()
	}
	if err != nil {
		return 0, fmt.Errorf("mount the mqueue file system: %w", err)
	}
	return n, nil
}

// countPOSIX mounts the file system of the calling thread's IPC namespace where
// nobody sees it, attached to nothing, and asks how large its root directory is.
// No queue is opened, and no time stamp changes, the directory's neither. A queue
// that was unlinked and is still open has no name, and is not counted.
//
// To mount needs CAP_SYS_ADMIN in the user namespace that owns the caller's mount
// namespace (fsopen(2)) and in the one that owns the IPC namespace.
func countPOSIX() (int, error) {
	context, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return 0, nil // a kernel without CONFIG_POSIX_MQUEUE
	}
	if err != nil {
		return 0, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return 0, fmt.Errorf("fsconfig: %w", err)
	}
	const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	root, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return 0, fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(root)
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return 0, fmt.Errorf("fstat: %w", err)
	}
	if st.Size < emptySize || st.Size%direntSize != 0 {
		return 0, fmt.Errorf("%w: %d bytes", errShape, st.Size)
	}
	return int(st.Size-emptySize) / direntSize, nil
}

// countApart counts on a thread that has a mount namespace of its own. Inside a user
// namespace whose mount namespace is still the host's nobody may mount; in a copy of
// it the user namespace's root may. The copy goes with the thread.
func (s *Space) countApart() (n int, err error) {
	err = s.ns.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare the mount namespace: %w", err)
		}
		n, err = countPOSIX()
		return err
	})
	return n, err
}
