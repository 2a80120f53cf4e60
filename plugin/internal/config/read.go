package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUntrusted says that others than root could have written the file.
var ErrUntrusted = errors.New("not trusted")

// maxSize in bytes bounds the file.
const maxSize = 1 << 20

const openFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// read returns the content of a file of the owner's. The directory is opened
// first and the file in it: what was checked is what is read.
func read(path string, owner uint32) ([]byte, error) {
	dir, err := open(unix.AT_FDCWD, filepath.Dir(path), filepath.Dir(path), unix.S_IFDIR, owner)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	file, err := open(int(dir.Fd()), filepath.Base(path), path, unix.S_IFREG, owner)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > maxSize {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", path, maxSize, unix.EFBIG)
	}
	return content, nil
}

// open opens a file of that type. O_NONBLOCK: a FIFO is refused, not waited for.
func open(at int, name, path string, kind, owner uint32) (*os.File, error) {
	flags := openFlags
	if kind == unix.S_IFDIR {
		flags |= unix.O_DIRECTORY
	}
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("open %s: %w: not a %s, or a symbolic link", path, ErrUntrusted, kindName(kind))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := trust(fd, kind, owner); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func trust(fd int, kind, owner uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != kind:
		return fmt.Errorf("%w: not a %s", ErrUntrusted, kindName(kind))
	case st.Uid != owner:
		return fmt.Errorf("%w: belongs to uid %d, not to %d", ErrUntrusted, st.Uid, owner)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%w: mode %04o lets group or others write; chmod go-w", ErrUntrusted, st.Mode&0o7777)
	}
	return nil
}

func kindName(kind uint32) string {
	if kind == unix.S_IFDIR {
		return "directory"
	}
	return "regular file"
}
