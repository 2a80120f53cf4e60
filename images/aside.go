package images

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// AsideSuffix ends the name of an image that is set aside during a CRIU restore,
// so that CRIU finds none and ipc-cr restores it instead. Whoever reads the
// directory meanwhile finds the image under its own name all the same.
const AsideSuffix = ".ipc-cr-aside"

// SetAside returns the names of the image files that are set aside, without the
// suffix.
func (d *Dir) SetAside() ([]string, error) {
	names, err := d.readNames()
	var aside []string
	for _, name := range names {
		if own, ok := asideName(name); ok {
			aside = append(aside, own)
		}
	}
	slices.Sort(aside)
	return aside, err
}

// asideName returns the own name of an image file that is set aside.
func asideName(name string) (own string, ok bool) {
	own, ok = strings.CutSuffix(name, AsideSuffix)
	if ok {
		_, _, ok = ParseFileName(own)
	}
	return own, ok
}

// names lists the directory; a file that is set aside has its own name.
func (d *Dir) names() ([]string, error) {
	names, err := d.readNames()
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		if own, ok := asideName(name); ok && !slices.Contains(names, own) {
			names[i] = own
		}
	}
	return names, nil
}

// handle opens a file of the directory, or of a file that is set aside that. It
// may get its own name back between two looks. O_PATH opens nothing yet: not the
// FIFO's other end, not the device.
func (d *Dir) handle(name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(d.fd(), name, flags, 0)
	_, _, image := ParseFileName(name)
	if !errors.Is(err, unix.ENOENT) || !image {
		return fd, err
	}
	if fd, aside := unix.Openat(d.fd(), name+AsideSuffix, flags, 0); aside == nil {
		return fd, nil
	}
	return unix.Openat(d.fd(), name, flags, 0)
}

// remove removes a file under either name. No error if there is none.
func (d *Dir) remove(name string) error {
	var errs []error
	for _, either := range []string{name, name + AsideSuffix} {
		err := unix.Unlinkat(d.fd(), either, 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the old %s: %w", d.join(either), err))
		}
	}
	return errors.Join(errs...)
}
