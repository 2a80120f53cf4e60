package criuconf

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrWritable says that others than root can write a program that root will run.
var ErrWritable = errors.New("others than root can write it")

// OnlyRootWrites wants a regular file that, like each directory on the way to
// it, belongs to root and cannot be written by group or others: CRIU will run it
// as root. ErrWritable if not; the error names the file or directory and tells
// what is wrong with it. Whoever can search the directories can ask.
func OnlyRootWrites(program string) error { return onlyRootWrites("criu", program) }

// onlyRootWrites is OnlyRootWrites for a program that root runs by another one.
func onlyRootWrites(by, program string) error {
	var st unix.Stat_t
	if err := unix.Lstat(program, &st); err != nil {
		return fmt.Errorf("stat %s: %w", program, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file", program)
	}
	for path := program; ; path = filepath.Dir(path) {
		if err := onlyRoot(path); err != nil {
			return fmt.Errorf("%s would run %s as root: %w", by, program, err)
		}
		if path == "/" {
			return nil
		}
	}
}

func onlyRoot(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case err != nil:
		return fmt.Errorf("stat %s: %w", path, err)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return fmt.Errorf("%s is a symbolic link: name the path without it", path)
	case st.Uid != 0:
		return fmt.Errorf("%s: %w: it belongs to uid %d", path, ErrWritable, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s: %w: its mode is %04o", path, ErrWritable, st.Mode&0o7777)
	}
	return nil
}
