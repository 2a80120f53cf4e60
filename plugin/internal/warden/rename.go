package warden

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Suffix is what the name of an image that is set aside ends with.
const Suffix = ".ipc-cr-aside"

// ErrReadOnly says that nothing can be set aside in the directory: nobody may
// write there (EROFS, EACCES, or EPERM of an immutable directory), or its file
// system cannot rename without replacing (EINVAL).
var ErrReadOnly = errors.New("nothing can be set aside in this directory")

// look says whether the directory has the regular file of that name. What is
// there and is no regular file is an error.
func look(dir int, name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, fmt.Errorf("%s is not a regular file (mode %#o): look at it, then remove it", name, st.Mode)
	}
	return true, nil
}

// place is where a file is.
type place int

const (
	absent place = iota // under neither name
	atHome              // under its own
	away                // set aside
)

// find says under which name the directory has a file. Under both is an error.
func find(dir int, name string) (place, error) {
	own, err := look(dir, name)
	if err != nil {
		return absent, err
	}
	aside, err := look(dir, name+Suffix)
	switch {
	case err != nil:
		return absent, err
	case own && aside:
		return absent, fmt.Errorf("%s and %s are both there: remove the one that is not the checkpoint's; "+
			"if it is the first, rename the second", name, name+Suffix)
	case aside:
		return away, nil
	case own:
		return atHome, nil
	}
	return absent, nil
}

// setAside renames one file that is there.
func setAside(dir int, name string) error {
	err := unix.Renameat2(dir, name, dir, name+Suffix, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("set %s aside: %w: %w", name, ErrReadOnly, err)
	}
	return fmt.Errorf("set %s aside: %w", name, err)
}

// putBack gives a file its name back, if it is set aside.
func putBack(dir int, name string) (done bool, err error) {
	at, err := find(dir, name)
	if err != nil {
		return false, fmt.Errorf("put %s back: %w", name, err)
	}
	if at != away {
		return false, nil
	}
	if err := unix.Renameat2(dir, name+Suffix, dir, name, unix.RENAME_NOREPLACE); err != nil {
		return false, fmt.Errorf("put %s back: %w: rename %s by hand", name, err, name+Suffix)
	}
	return true, nil
}
