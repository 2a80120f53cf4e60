package state

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrBusy says that another process has claimed the file.
var ErrBusy = errors.New("claimed by another process")

// Claim is a file that this process alone works on, until Release or its death
// (flock(2)).
type Claim struct {
	dir  *Dir
	file *os.File
	name string
}

// Claim claims an existing file. ErrBusy if somebody else has, ENOENT if there
// is none; errors as of Read.
func (d *Dir) Claim(name string) (*Claim, error) {
	file, err := d.open(name)
	if err != nil {
		return nil, err
	}
	if err := d.lock(file, name); err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Claim{dir: d, file: file, name: name}, nil
}

// lock locks the file and makes sure that it still is the one of that name.
func (d *Dir) lock(file *os.File, name string) error {
	fd := int(file.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return fmt.Errorf("claim %s: %w", d.Join(name), err)
	}
	named, err := d.names(fd, name)
	switch {
	case err != nil:
		return fmt.Errorf("claim %s: %w", d.Join(name), err)
	case !named:
		return d.explainLost(name)
	}
	return nil
}

// explainLost says what has become of the file that was just open under a name.
func (d *Dir) explainLost(name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("claim %s: %w", d.Join(name), err)
	}
	return fmt.Errorf("claim %s: replaced meanwhile: %w", d.Join(name), ErrBusy)
}

// Read returns the claimed file's content. Errors as of Dir.Read.
func (c *Claim) Read() ([]byte, error) { return c.dir.content(c.file, c.name, MaxFile) }

// Remove removes the claimed file.
func (c *Claim) Remove() error { return c.dir.Remove(c.name) }

// Release gives the file free.
func (c *Claim) Release() { _ = c.file.Close() }
