package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// MaxFile is the size in bytes that a file of the state directory can have.
const MaxFile = 64 << 10

// MaxLarge is the size in bytes that a file can have that is written with
// ReplaceLarge: one with a line for every object of a namespace.
const MaxLarge = 64 << 20

// tempPrefix begins the names of files that are not complete yet. The process
// that writes one is part of its name.
const tempPrefix = ".tmp-"

// tempCount tells the temporaries of one process apart.
var tempCount atomic.Uint64

// Create makes a file with that content, complete from the first moment.
// EEXIST if there is one of that name: of two processes one succeeds.
func (d *Dir) Create(name string, content []byte) error {
	return d.write(name, content, unix.RENAME_NOREPLACE, MaxFile)
}

// Replace is Create for a file that may exist. Readers see the old content or
// the new.
func (d *Dir) Replace(name string, content []byte) error {
	return d.write(name, content, 0, MaxFile)
}

// ReplaceLarge is Replace for a file of up to MaxLarge bytes, which ReadLarge
// reads.
func (d *Dir) ReplaceLarge(name string, content []byte) error {
	return d.write(name, content, 0, MaxLarge)
}

func (d *Dir) write(name string, content []byte, flags uint, limit int) error {
	if len(content) > limit {
		return fmt.Errorf("write %s: %d bytes are more than %d: %w", d.Join(name), len(content), limit, unix.EFBIG)
	}
	temp, err := d.writeTemp(content)
	if err != nil {
		return fmt.Errorf("write %s: %w", d.Join(name), err)
	}
	if err := unix.Renameat2(d.fd, temp, d.fd, name, flags); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0)
		return fmt.Errorf("write %s: rename: %w", d.Join(name), err)
	}
	return nil
}

// writeTemp writes a temporary and returns its name.
func (d *Dir) writeTemp(content []byte) (string, error) {
	self, err := Self()
	if err != nil {
		return "", err
	}
	temp := fmt.Sprintf("%s%d-%d-%d", tempPrefix, self.PID, self.Start, tempCount.Add(1))
	fd, err := unix.Openat(d.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", fmt.Errorf("create %s: %w", temp, err)
	}
	file := os.NewFile(uintptr(fd), temp)
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0)
		return "", err
	}
	return temp, nil
}

// Read returns a file's content. ENOENT if there is none, ErrUntrusted if it is
// not a regular file of the caller's own, EFBIG if it is larger than MaxFile.
func (d *Dir) Read(name string) ([]byte, error) { return d.read(name, MaxFile) }

// ReadLarge is Read with MaxLarge as the limit.
func (d *Dir) ReadLarge(name string) ([]byte, error) { return d.read(name, MaxLarge) }

func (d *Dir) read(name string, limit int) ([]byte, error) {
	file, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return d.content(file, name, limit)
}

func (d *Dir) content(file *os.File, name string, limit int) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Join(name), err)
	}
	if len(content) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", d.Join(name), limit, unix.EFBIG)
	}
	return content, nil
}

// open opens a file for reading. O_NONBLOCK: a FIFO is refused, not waited for.
func (d *Dir) open(name string) (*os.File, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("open %s: %w: not a regular file", d.Join(name), ErrUntrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Join(name), err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
		err = fmt.Errorf("stat %s: %w", d.Join(name), err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = fmt.Errorf("open %s: %w: not a regular file", d.Join(name), ErrUntrusted)
	case int(st.Uid) != unix.Geteuid():
		err = fmt.Errorf("open %s: %w: belongs to uid %d", d.Join(name), ErrUntrusted, st.Uid)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.Join(name)), nil
}

// Remove removes a file. No error if there is none.
func (d *Dir) Remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", d.Join(name), err)
	}
	return nil
}

// Names returns the files of the directory, temporaries left out, in no order.
// Temporaries that a dead process left behind are removed on the way.
func (d *Dir) Names() ([]string, error) {
	all, err := d.readNames()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	names := all[:0]
	for _, name := range all {
		if !strings.HasPrefix(name, tempPrefix) {
			names = append(names, name)
		} else if abandoned(name) {
			_ = d.Remove(name) // by the next run, if not by this one
		}
	}
	return names, nil
}

func (d *Dir) readNames() ([]string, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	list := os.NewFile(uintptr(fd), d.path)
	defer list.Close()
	return list.Readdirnames(-1)
}

// abandoned says whether the process that was writing a temporary is dead.
func abandoned(temp string) bool {
	var writer Process
	var count uint64
	_, err := fmt.Sscanf(temp, tempPrefix+"%d-%d-%d", &writer.PID, &writer.Start, &count)
	return err == nil && !writer.Alive()
}
