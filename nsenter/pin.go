package nsenter

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Pin bind-mounts the namespace at path, as `ip netns` does for network
// namespaces: it then lives on without tasks until Unpin, and path can be
// given to OpenPath, nsenter(1) or a container runtime. The file is made, with
// mode 0600, in a directory that exists; an empty regular file is used as it
// is; an existing pin, a symbolic link or anything else is refused (EEXIST).
// If the mount fails, a file made for it is removed.
//
// The mount is made in the caller's mount namespace and reaches others as far
// as the directory's mount is shared (mount_namespaces(7)). It needs
// CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
func (n *Namespace) Pin(path string) error {
	dir, base, err := openParent(path)
	if err != nil {
		return fmt.Errorf("pin %s at %q: %w", n, path, err)
	}
	defer unix.Close(dir)
	if err := n.pinAt(dir, base); err != nil {
		return fmt.Errorf("pin %s at %q: %w", n, path, err)
	}
	return nil
}

// MayPin reports, by its error, what Pin would be refused at path. It changes
// nothing, and needs what Pin does.
func MayPin(path string) error {
	dir, base, err := openParent(path)
	if err != nil {
		return fmt.Errorf("pin at %q: %w", path, err)
	}
	defer unix.Close(dir)
	if err := mayPinAt(dir, base); err != nil {
		return fmt.Errorf("pin at %q: %w", path, err)
	}
	return nil
}

func mayPinAt(dir int, base string) error {
	target, err := openFD(dir, base, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Faccessat(dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("make the file: %w", err)
		}
		return mayMount(dir)
	}
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	defer unix.Close(target)
	if err := checkEmptyFile(target); err != nil {
		return err
	}
	return mayMount(target)
}

// mayMount asks the kernel for a copy of a mount, which it refuses (EPERM) as it
// does a bind mount, and which goes with its descriptor. Other errors tell nothing:
// a kernel before 5.2 has no open_tree(2).
func mayMount(fd int) error {
	tree, err := unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		return unix.Close(tree)
	}
	if errors.Is(err, unix.EPERM) {
		return explainMount(err)
	}
	return nil
}

// explainMount adds who may mount.
func explainMount(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("bind mount: %w (needs CAP_SYS_ADMIN over the mount namespace: run as root, or under `unshare -Urm`)", err)
	}
	return fmt.Errorf("bind mount: %w", err)
}

// openParent holds the directory, so that making, mounting and removing all
// happen in the same one.
func openParent(path string) (dir int, base string, err error) {
	parent, base := filepath.Split(path)
	if base == "" || base == "." || base == ".." {
		return -1, "", fmt.Errorf("is not the name of a file: %w", unix.EINVAL)
	}
	if parent == "" {
		parent = "."
	}
	dir, err = openFD(unix.AT_FDCWD, parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, "", fmt.Errorf("open directory %q: %w", parent, err)
	}
	return dir, base, nil
}

func (n *Namespace) pinAt(dir int, base string) error {
	made, err := makeFile(dir, base)
	if err != nil {
		return err
	}
	err = n.mountAt(dir, base)
	if err != nil && made {
		return errors.Join(err, unix.Unlinkat(dir, base, 0))
	}
	return err
}

// makeFile reports false if the file is there already.
func makeFile(dir int, base string) (made bool, err error) {
	var fd int
	err = ignoringEINTR(func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY|unix.O_CLOEXEC, 0o600)
		return err
	})
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("make the file: %w", err)
	}
	return true, unix.Close(fd)
}

// mountAt mounts over the very file it has looked at: the target is named by
// its descriptor, so no symbolic link can be put in its place.
func (n *Namespace) mountAt(dir int, base string) error {
	target, err := openFD(dir, base, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	defer unix.Close(target)
	if err := checkEmptyFile(target); err != nil {
		return err
	}
	if err := unix.Mount(fdPath(n.Fd()), fdPath(target), "", unix.MS_BIND, ""); err != nil {
		return explainMount(err)
	}
	return nil
}

func checkEmptyFile(fd int) error {
	if checkNsfs(fd) == nil {
		return fmt.Errorf("a namespace is pinned there: %w", unix.EEXIST)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is there: %w", fileKind(st.Mode), unix.EEXIST)
	}
	if st.Size != 0 {
		return fmt.Errorf("a file with content is there: %w", unix.EEXIST)
	}
	return nil
}

// Unpin undoes Pin: it unmounts path and removes the empty file below. What is
// not the mount of an IPC namespace is refused and left alone. Who has the
// namespace open keeps it. It needs CAP_SYS_ADMIN as Pin does.
func Unpin(path string) error {
	dir, base, err := openParent(path)
	if err != nil {
		return fmt.Errorf("unpin %q: %w", path, err)
	}
	defer unix.Close(dir)
	if err := unpinAt(dir, base); err != nil {
		return fmt.Errorf("unpin %q: %w", path, err)
	}
	return nil
}

func unpinAt(dir int, base string) error {
	if err := unmountAt(dir, base); err != nil {
		return err
	}
	below, err := openFD(dir, base, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open the file below: %w", err)
	}
	defer unix.Close(below)
	if err := checkEmptyFile(below); err != nil {
		return fmt.Errorf("unmounted, but not removed: %w", err)
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil {
		return fmt.Errorf("remove the file: %w", err)
	}
	return nil
}

// unmountAt names the mount by the descriptor it was checked through. That
// holds the mount, hence MNT_DETACH: a plain umount2(2) would find it busy.
func unmountAt(dir int, base string) error {
	look, err := openFD(dir, base, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(look)
	fd, err := reopenNamespace(look)
	if err != nil {
		return err
	}
	unix.Close(fd)
	if err := unix.Unmount(fdPath(look), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount: %w", err)
	}
	return nil
}
