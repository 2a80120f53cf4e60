package infront

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
)

// Name is the name under which the binary is the place in front of criu, and
// HookName the one under which it is criu's action script.
const (
	Name     = "criu"
	HookName = idle.Name
)

// passedEnv tells the next program which files have been executed under the name
// criu before it, so that two copies of ipc-cr, or one behind a script that looks
// criu up on PATH, do not go round in a circle.
const passedEnv = "IPC_CR_IN_FRONT"

// maxPassed ends what is a circle all the same.
const maxPassed = 16

// fileID is what tells files apart, whatever they are called.
type fileID struct{ dev, ino uint64 }

func (id fileID) String() string { return fmt.Sprintf("%d:%d", id.dev, id.ino) }

func identify(path string) (fileID, fs.FileMode, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	mode := fs.FileMode(st.Mode & 0o777)
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		mode |= fs.ModeIrregular
	}
	return fileID{st.Dev, st.Ino}, mode, nil
}

// place is where this process stands on PATH.
type place struct {
	link   string   // the path it was found under, "" if by none of PATH
	next   string   // the real criu
	passed []string // files that have been here, this one last
}

// findPlace looks along PATH as execvp(3) does, past every file that has been here
// already. Relative entries are passed over: a directory that somebody happens to
// stand in is no place for a program that root runs.
func findPlace(argv0 string) (*place, error) {
	self, _, err := identify("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	p := &place{passed: append(strings.Fields(os.Getenv(passedEnv)), self.String())}
	if len(p.passed) > maxPassed {
		return p, fmt.Errorf("criu: %w: ipc-cr was executed under that name %d times in a row", unix.ELOOP, maxPassed)
	}
	if strings.ContainsRune(argv0, '/') {
		p.link = argv0
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p.look(filepath.Join(dir, Name), self); p.next != "" {
			return p, nil
		}
	}
	return p, fmt.Errorf("criu: %w: on PATH there is nothing of that name but ipc-cr", exec.ErrNotFound)
}

func (p *place) look(path string, self fileID) {
	id, mode, err := identify(path)
	switch {
	case err != nil || !filepath.IsAbs(path) || !mode.IsRegular() || mode.Perm()&0o111 == 0:
	case id == self && p.link == "":
		p.link = path
	case !slices.Contains(p.passed, id.String()):
		p.next = path
	}
}

// hook returns the path of the action script: the file or link named HookName
// beside the name that this process was started under, or beside the binary.
func (p *place) hook() (string, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, beside := range []string{p.link, binary} {
		if beside == "" {
			continue
		}
		path, err := filepath.Abs(filepath.Join(filepath.Dir(beside), HookName))
		if err != nil {
			return "", err
		}
		if _, mode, err := identify(path); err == nil && mode.IsRegular() && mode.Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("action script: no %s beside %s or %s: %w", HookName, p.link, binary, errors.ErrUnsupported)
}
