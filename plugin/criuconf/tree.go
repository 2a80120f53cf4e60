package criuconf

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSize in bytes bounds a configuration file.
const maxSize = 1 << 20

// tree is the host, or a directory as if it were one. Symbolic links do not lead
// out of it.
type tree struct {
	root *os.Root
	path string
	host bool // it is the host itself
}

// file is a configuration file as it was found.
type file struct {
	text []byte
	stat unix.Stat_t
}

func openTree(path string) (*tree, error) {
	if path == "" {
		path = "/"
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &tree{root: root, path: path, host: path == "/"}, nil
}

// Close ends the use of the tree.
func (t *tree) Close() { _ = t.root.Close() }

func local(path string) string { return strings.TrimPrefix(path, "/") }

func (t *tree) exists(path string) bool {
	_, err := t.root.Lstat(local(path))
	return err == nil
}

// lookPath is exec.LookPath with the directories of PATH below the tree.
func (t *tree) lookPath(program string) string {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		if !filepath.IsAbs(path) {
			continue
		}
		// An absolute link leads out of the tree, and is good on the target.
		info, err := t.root.Lstat(local(path))
		if err == nil && (info.Mode().IsRegular() && info.Mode()&0o111 != 0 || info.Mode()&fs.ModeSymlink != 0) {
			return path
		}
	}
	return ""
}

// read returns nil if there is no such file. A link is refused: replacing the
// file would replace the link, and what it leads to is somebody's of whom
// nothing is known here. O_NONBLOCK: a FIFO is refused, not waited for.
func (t *tree) read(path string) (*file, error) {
	f, err := t.root.OpenFile(local(path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch info, lstatErr := t.root.Lstat(local(path)); {
	case lstatErr == nil && !info.Mode().IsRegular():
		if err == nil {
			_ = f.Close()
		}
		return nil, fmt.Errorf("%s is not a regular file: edit what it stands for by hand", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer f.Close()
	found := &file{}
	if err := unix.Fstat(int(f.Fd()), &found.stat); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	found.text, err = readAll(f, path)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// content is what a criu will read there, through links too, and nil if there
// is nothing.
func (t *tree) content(path string) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(t.path, path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return readAll(f, path)
}

func readAll(f *os.File, path string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("read %s: more than %d bytes: %w", path, maxSize, unix.EFBIG)
	}
	return text, err
}

// write replaces a file, or makes one, by a rename: a criu that starts meanwhile
// reads the old text or the new. Owner, mode and security label stay.
func (t *tree) write(path string, old *file, text []byte) error {
	name := local(path)
	if err := t.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temp := fmt.Sprintf("%s/.%s.ipc-cr-%s", filepath.Dir(name), filepath.Base(name), rand.Text())
	f, err := t.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = fill(f, old, text)
	if err == nil && old != nil {
		err = t.copyLabel(name, f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = t.root.Rename(temp, name)
	}
	if err != nil {
		_ = t.root.Remove(temp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func fill(f *os.File, old *file, text []byte) error {
	mode, uid, gid := uint32(0o644), -1, -1
	if old != nil {
		mode, uid, gid = old.stat.Mode&0o7777, int(old.stat.Uid), int(old.stat.Gid)
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(int(f.Fd()), mode); err != nil { // after chown, which takes setuid bits away
		return fmt.Errorf("chmod: %w", err)
	}
	return f.Sync()
}

// copyLabel copies what chmod does not: the SELinux label and the access list.
func (t *tree) copyLabel(name string, to *os.File) error {
	from, err := t.root.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	buf := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for _, attribute := range []string{"security.selinux", "system.posix_acl_access"} {
		n, err := unix.Fgetxattr(int(from.Fd()), attribute, buf)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), attribute, buf[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", attribute, err)
		}
	}
	return nil
}

func (t *tree) remove(path string) error {
	if err := t.root.Remove(local(path)); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// link returns where a symbolic link leads, "" if there is nothing, and else
// what is there.
func (t *tree) link(path string) (string, error) {
	info, err := t.root.Lstat(local(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink == 0:
		return "a file of mode " + info.Mode().String(), nil
	}
	return t.root.Readlink(local(path))
}

func (t *tree) symlink(target, path string) error {
	err := t.root.MkdirAll(filepath.Dir(local(path)), 0o755)
	if err == nil {
		err = t.root.Symlink(target, local(path))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}
