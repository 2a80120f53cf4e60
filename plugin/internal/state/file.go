package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxFile is the size in bytes that a file of the state directory can have.
const MaxFile = 64 << 10

// MaxLarge is the size in bytes that a file can have that is written with
// ReplaceLarge: one with a line for every object of a namespace.
const MaxLarge = 64 << 20

// tempPrefix begins the names of files that are not complete yet.
const tempPrefix = ".tmp-"

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
	defer temp.Release()
	if err := unix.Renameat2(d.fd, temp.name, d.fd, name, flags); err != nil {
		_ = temp.Remove()
		return fmt.Errorf("write %s: rename: %w", d.Join(name), err)
	}
	return nil
}

// writeTemp writes a temporary, which is claimed until it has its name: one that
// nobody has claimed is abandoned. Its writer's pid would not tell, for /run may
// be shared by pid namespaces.
func (d *Dir) writeTemp(content []byte) (*Claim, error) {
	temp, err := d.claimTemp()
	if err != nil {
		return nil, err
	}
	if _, err := temp.file.Write(content); err != nil {
		_ = temp.Remove()
		temp.Release()
		return nil, err
	}
	return temp, nil
}

// claimTemp makes another one where somebody found the last one before it was
// claimed and took it for an abandoned one.
func (d *Dir) claimTemp() (*Claim, error) {
	for {
		name := tempPrefix + rand.Text()
		fd, err := unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("create %s: %w", name, err)
		}
		temp := &Claim{dir: d, file: os.NewFile(uintptr(fd), d.Join(name)), name: name}
		err = d.lock(temp.file, name)
		if err == nil {
			return temp, nil
		}
		other := errors.Is(err, ErrBusy) || errors.Is(err, unix.ENOENT)
		if !other {
			_ = temp.Remove() // nobody could claim it later
		}
		temp.Release()
		if !other {
			return nil, err
		}
	}
}

// Read returns a file's content. ENOENT if there is none, ErrUntrusted if it is
// not a regular file of the caller's own, EFBIG if it is larger than MaxFile.
func (d *Dir) Read(name string) ([]byte, error) { return d.read(name, MaxFile) }

// ReadLarge is Read with MaxLarge as the limit.
func (d *Dir) ReadLarge(name string) ([]byte, error) { return d.read(name, MaxLarge) }

// MayWrite reports, by its error, whether there is room for another file: ENOSPC or
// EDQUOT if the file system is full, EROFS if it cannot be written. It leaves nothing
// behind.
func (d *Dir) MayWrite() error {
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return nil // a file system that cannot tell
	}
	if err != nil {
		return fmt.Errorf("create a file in %s: %w", d.path, err)
	}
	file := os.NewFile(uintptr(fd), d.path)
	_, err = file.Write(make([]byte, 4096))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("create a file in %s: %w", d.path, err)
	}
	return nil
}

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

// open opens a file for reading.
func (d *Dir) open(name string) (*os.File, error) { return d.openFile(name, unix.O_RDONLY) }

// openFile opens a file. O_NONBLOCK: a FIFO is refused, not waited for.
func (d *Dir) openFile(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("open %s: %w: not a regular file", d.Join(name), ErrUntrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Join(name), err)
	}
	if err := d.trustFile(fd, name); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.Join(name)), nil
}

// trustFile refuses an open file that is not a regular one of the caller's own.
func (d *Dir) trustFile(fd int, name string) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	switch {
	case err != nil:
		return fmt.Errorf("stat %s: %w", d.Join(name), err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("open %s: %w: not a regular file", d.Join(name), ErrUntrusted)
	case int(st.Uid) != unix.Geteuid():
		return fmt.Errorf("open %s: %w: belongs to uid %d", d.Join(name), ErrUntrusted, st.Uid)
	}
	return nil
}

// Remove removes a file. No error if there is none.
func (d *Dir) Remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", d.Join(name), err)
	}
	return nil
}

// Rename gives a file another name, which needs no room. What had that name is gone.
// ENOENT if there is no such file.
func (d *Dir) Rename(from, to string) error {
	if err := unix.Renameat(d.fd, from, d.fd, to); err != nil {
		return fmt.Errorf("rename %s: %w", d.Join(from), err)
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
		if strings.HasPrefix(name, tempPrefix) {
			d.removeAbandoned(name)
		} else {
			names = append(names, name)
		}
	}
	return names, nil
}

// removeAbandoned removes a temporary that no living process has claimed. What
// fails is done by the next run, if not by this one.
func (d *Dir) removeAbandoned(temp string) {
	claim, err := d.Claim(temp)
	if err != nil {
		return
	}
	_ = claim.Remove()
	claim.Release()
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
