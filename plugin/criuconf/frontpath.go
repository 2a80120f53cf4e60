package criuconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ServicesPath is where services look for programs unless told otherwise: what
// systemd gives them by default (systemd.exec(5), $PATH), and with the last two
// what it and Debian's login(1) give where /usr is not merged.
const ServicesPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// criuName is the name that runtimes look up on PATH.
const criuName = "criu"

// searchPath is a PATH and whose it is.
type searchPath struct{ of, path string }

// searchPaths are those on which it matters what criu is found: this process's
// own, and that of services. Below another root only the latter means anything.
func (t *tree) searchPaths() []searchPath {
	services := searchPath{"services", ServicesPath}
	if !t.host {
		return []searchPath{services}
	}
	return []searchPath{{"this command", os.Getenv("PATH")}, services}
}

// standing is what is found under the name criu in a directory.
type standing int

const (
	nothing standing = iota
	ours             // a link to this binary
	stale            // a link to an ipc-cr that is gone
	another          // a link to an ipc-cr in another place
	foreign          // anything else
)

func (t *tree) abs(path string) string { return filepath.Join(t.path, path) }

// standing tells what is at a path, and where it leads if it is a link. It reads
// through links on the way, as execve(2) will: nothing is changed by it.
func (t *tree) standing(path, binary string) (is standing, target string) {
	info, err := os.Lstat(t.abs(path))
	if err != nil {
		return nothing, ""
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return foreign, ""
	}
	target, err = os.Readlink(t.abs(path))
	if err != nil {
		return foreign, ""
	}
	switch {
	case target == binary || t.same(path, binary):
		return ours, target
	case filepath.Base(target) != filepath.Base(binary):
		return foreign, target
	case t.missing(path, target):
		return stale, target
	}
	return another, target
}

// missing says whether a link leads nowhere. An absolute one is good below the
// tree only.
func (t *tree) missing(link, target string) bool {
	_, err := os.Lstat(t.abs(leadsTo(link, target)))
	return err != nil
}

// leadsTo is the path that a link's target means.
func leadsTo(link, target string) string {
	if filepath.IsAbs(target) {
		return target
	}
	return filepath.Join(filepath.Dir(link), target)
}

func (t *tree) same(a, b string) bool {
	first, err := os.Stat(t.abs(a))
	if err != nil {
		return false
	}
	second, err := os.Stat(t.abs(b))
	return err == nil && os.SameFile(first, second)
}

// programAt says whether a search along PATH ends at a path.
func (t *tree) programAt(path string) bool {
	info, err := os.Stat(t.abs(path))
	if err != nil && !t.host { // an absolute link leads out of the tree, and is good on the target
		info, err = os.Lstat(t.abs(path))
		return err == nil && info.Mode()&fs.ModeSymlink != 0
	}
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// along searches a PATH as execvp(3) does and returns the first criu on it, and
// before that the first place that front calls one of ipc-cr's.
func (t *tree) along(path string, front func(path string) bool) (place, criu string) {
	for _, dir := range filepath.SplitList(path) {
		found := filepath.Join(dir, criuName)
		switch {
		case !filepath.IsAbs(dir):
		case front(found):
			if place == "" {
				place = found
			}
		case t.programAt(found):
			return place, found
		}
	}
	return place, ""
}

// criuPlaces are the paths at which a search on any PATH may come by ipc-cr. A
// directory that has several names is there once.
func (t *tree) criuPlaces() []string {
	dirs := slices.Clone(frontDirs)
	for _, p := range t.searchPaths() {
		dirs = append(dirs, filepath.SplitList(p.path)...)
	}
	var places []string
	for _, dir := range dirs {
		place := filepath.Join(t.resolve(dir), criuName)
		if filepath.IsAbs(dir) && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return places
}

// holds says why a directory is none, or cannot be made one.
func (t *tree) holds(dir string) error {
	info, err := os.Stat(t.abs(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist) && dir != "/":
		return t.holds(filepath.Dir(dir))
	case errors.Is(err, unix.ENOTDIR) || err == nil && !info.IsDir():
		return fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	return err
}

// resolve returns the path of a directory without symbolic links: Fedora's
// /usr/local/sbin is one. Below another root they are taken as they are.
func (t *tree) resolve(dir string) string {
	if t.host {
		if resolved, err := filepath.EvalSymlinks(t.abs(dir)); err == nil {
			return filepath.Join("/", strings.TrimPrefix(resolved, t.path))
		}
	}
	return dir
}

// onlyRootDir is OnlyRootWrites for a directory in which something will be put
// before criu; what is missing of it will be made by root.
func onlyRootDir(dir string) error {
	for path := dir; ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); err == nil {
			if err := onlyRoot(path); err != nil {
				return fmt.Errorf("in place of criu root would run what is in %s: %w", dir, err)
			}
		}
		if path == "/" {
			return nil
		}
	}
}
