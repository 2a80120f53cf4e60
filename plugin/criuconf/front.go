package criuconf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoCRIU says that there is no criu to stand in front of.
var ErrNoCRIU = errors.New("there is no criu on PATH: install it first")

// errAnother says of a link that it is not ours to touch, nor to go around.
var errAnother = errors.New("the ipc-cr of another place")

// frontDirs are where the place in front of criu is made, the first one that
// fits: of the directories that every usual PATH begins with, those that are the
// administrator's and no package's.
var frontDirs = []string{"/usr/local/sbin", "/usr/local/bin"}

// planFront makes criu a link to ipc-cr, in a directory that is searched before
// that of the real criu. The link names the binary by its path, so that a newer
// one in its place is in front at once.
func (j *job) planFront(dir string) error {
	place, err := j.choosePlace(dir)
	if err != nil {
		return err
	}
	if j.root.host {
		if err := onlyRootDir(filepath.Dir(place)); err != nil {
			return err
		}
	}
	if err := j.oldBehind(place); err != nil {
		return j.refusal(err)
	}
	change := Change{Path: place, Action: Created, Runtimes: []string{}, Diff: []string{"+link to " + j.binary}}
	s := step{change, func() error { return j.root.symlink(j.binary, place) }}
	switch is, target := j.root.standing(place, j.binary); is {
	case ours:
		s.change.Action, s.change.Diff, s.do = Unchanged, []string{}, nil
	case stale:
		s.change.Action, s.change.Diff = Changed, []string{"-link to " + target, "+link to " + j.binary}
		s.do = func() error {
			return errors.Join(j.root.remove(place), j.root.symlink(j.binary, place))
		}
	}
	j.steps = append(j.steps, s)
	return j.noteFront(place)
}

// choosePlace is where the link goes: where it is already, or into the directory
// asked for, or into the first one that fits.
func (j *job) choosePlace(dir string) (string, error) {
	if dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("directory %q: not an absolute path", dir)
		}
		place := filepath.Join(dir, criuName)
		return place, j.fits(place)
	}
	if found := j.places(); len(found) > 0 && j.fits(found[0]) == nil {
		return found[0], nil
	}
	var why []string
	for _, dir := range frontDirs {
		place := filepath.Join(j.root.resolve(dir), criuName)
		err := j.fits(place)
		if err == nil || errors.Is(err, ErrNoCRIU) || errors.Is(err, errAnother) {
			return place, err
		}
		why = append(why, err.Error())
	}
	return "", fmt.Errorf("no place in front of criu: %s: name a directory that is searched first (--dir)", strings.Join(why, "; "))
}

// fits says why the link cannot be made at a place, or would be of no use there.
func (j *job) fits(place string) error {
	switch is, target := j.root.standing(place, j.binary); is {
	case foreign:
		return fmt.Errorf("%s is there and was not made by ipc-cr", place)
	case another:
		return fmt.Errorf("%s is a link to %s, %w: uninstall that one first", place, target, errAnother)
	}
	if err := j.root.holds(filepath.Dir(place)); err != nil {
		return err
	}
	if !j.root.host {
		return nil // a package depends on criu, and does not hold it
	}
	return j.useful(place)
}

// useful wants a real criu, and the place before it on one PATH at least.
func (j *job) useful(place string) error {
	why := ErrNoCRIU
	for _, p := range j.root.searchPaths() {
		front, criu := j.root.along(p.path, j.front(place))
		switch {
		case criu != "" && front != "":
			return nil
		case criu != "":
			why = fmt.Errorf("%s is found before anything in %s", criu, filepath.Dir(place))
		}
	}
	return why
}

// oldBehind is an error where the place would stand before a criu that is too old:
// for a dump ipc-cr brings the hook along.
func (j *job) oldBehind(place string) error {
	for _, p := range j.root.searchPaths() {
		front, criu := j.root.along(p.path, j.front(place))
		if a, asked := j.criu.of(criu); asked && front != "" && a.old() != nil {
			return a.old()
		}
	}
	return nil
}

// front says of a path whether ipc-cr is there, or will be with a link at place.
func (j *job) front(place string) func(string) bool {
	return func(path string) bool {
		is, _ := j.root.standing(path, j.binary)
		return is == ours || is == another || j.root.same(filepath.Dir(path), filepath.Dir(place)) || path == place
	}
}

// places are the links to this ipc-cr that a search on any PATH comes by.
func (j *job) places() []string {
	return slices.DeleteFunc(j.root.criuPlaces(), func(place string) bool {
		is, _ := j.root.standing(place, j.binary)
		return is != ours
	})
}

// noteFront tells for whom the place is not in front, and what it does not do.
func (j *job) noteFront(place string) error {
	if j.root.host {
		for _, p := range j.root.searchPaths() {
			if front, criu := j.root.along(p.path, j.front(place)); front == "" && criu != "" {
				j.note("not in front for %s: %s is found first on %s", p.of, criu, p.path)
			}
		}
	}
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		if has, err := j.has(file); has || err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(j.steps, func(s step) bool { return len(s.change.Runtimes) > 0 }) {
		j.note("restores are CRIU's own as long as no runtime has the hook: ipc-cr install")
	}
	return nil
}

// planOutOfFront removes the links to this ipc-cr, and those to one that is gone.
func (j *job) planOutOfFront(dir string) {
	places := []string{filepath.Join(dir, criuName)}
	if dir == "" {
		places = j.root.criuPlaces()
	}
	for _, place := range places {
		j.planRemoveFront(place)
	}
}

func (j *job) planRemoveFront(place string) {
	is, target := j.root.standing(place, j.binary)
	switch is {
	case another:
		j.note("%s stays: it is a link to %s, %v", place, target, errAnother)
	case ours, stale:
		change := Change{Path: place, Action: Removed, Runtimes: []string{}, Diff: []string{"-link to " + target}}
		j.steps = append(j.steps, step{change, func() error { return j.root.remove(place) }})
	}
}

// stays says whether a link to this ipc-cr is left in front when all is done.
func (j *job) stays() (place string, is bool) {
	for _, place := range j.places() {
		if !slices.ContainsFunc(j.steps, func(s step) bool { return s.change.Path == place }) {
			return place, true
		}
	}
	return "", false
}
