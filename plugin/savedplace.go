package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// savedPrefix begins the names of directories in the state directory with what a
// restore has removed.
const savedPrefix = "replaced-"

// savedName is the name of a namespace's directory. Only where the kernel gives ids
// one that a killed restore left is known to be of the same namespace.
func (r *restore) savedName() string {
	if r.source.ID != 0 {
		return savedPrefix + strconv.FormatUint(r.source.ID, 10)
	}
	return fmt.Sprintf("%sinode-%d-%d", savedPrefix, r.source.Inode, os.Getpid())
}

// openSaved opens the directory: with what a killed run of this restore left there
// if it completes that one, and for a run that removes something with a number that
// is free. It is in the state directory, or among the temporary files where there
// is none. nil where there is nothing to open.
func (r *restore) openSaved(completes, removes bool) (*saved, error) {
	dir := r.prelude.locks()
	if dir == nil {
		return r.openTemporary(removes)
	}
	path := dir.Join(r.savedName())
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !removes {
		return nil, nil
	}
	lock, err := dir.TryLock(r.savedName(), false)
	if err != nil {
		return nil, fmt.Errorf("another restore into %s is under way: %w", r.ns, err)
	}
	s, err := openSaved(path, completes, removes)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	s.lock = lock
	return s, nil
}

// savedParent is where that directory is, or is going to be.
func (r *restore) savedParent() string {
	dir, err := r.prelude.state()
	switch place := state.Place(); {
	case err == nil:
		return dir.Path()
	case errors.Is(err, state.ErrNowhere) && place != "": // a dry run does not make it
		return filepath.Dir(place)
	}
	return os.TempDir()
}

func (r *restore) openTemporary(removes bool) (*saved, error) {
	if !removes {
		return nil, nil
	}
	path, err := os.MkdirTemp("", "ipc-cr-"+savedPrefix)
	if err != nil {
		return nil, err
	}
	return openSaved(path, false, true)
}

func openSaved(path string, completes, removes bool) (*saved, error) {
	dir, err := images.MakeDir(path)
	if err != nil {
		return nil, err
	}
	err = errors.Join(dir.Lock(), dir.Sweep())
	numbers, listErr := dir.Numbers()
	if err = errors.Join(err, listErr); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	s := &saved{dir: dir, number: 1}
	if len(numbers) > 0 {
		s.number = numbers[len(numbers)-1] + 1
	}
	if completes {
		s.numbers = numbers
	}
	if removes {
		s.numbers = append(s.numbers, s.number)
	}
	return s, nil
}

// recoverSaved tells of what killed restores have removed, and removes what is of
// namespaces that are gone.
func recoverSaved(dir *state.Dir, names []string) (r state.Recovery) {
	for _, name := range names {
		if !strings.HasPrefix(name, savedPrefix) || strings.HasSuffix(name, state.LockSuffix) {
			continue
		}
		lock, err := dir.TryLock(name, false)
		if errors.Is(err, state.ErrBusy) {
			continue // a restore is under way
		}
		if err == nil {
			err = leftSaved(dir.Join(name))
		}
		r.Warn(errors.Join(err, lock.Release()))
	}
	return r
}

// leftSaved is an error that tells of a directory with what a killed restore has
// removed.
func leftSaved(path string) error {
	source, err := savedOf(path)
	if errors.Is(err, fs.ErrNotExist) { // it was killed before anything was saved
		return os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("look at %s, then remove it: %w", path, err)
	}
	ns, err := nsenter.OpenIdentity(identity(source))
	if errors.Is(err, nsenter.ErrGone) {
		return os.RemoveAll(path)
	}
	if err == nil {
		defer ns.Close()
	}
	return fmt.Errorf("a restore into ipc:[%d] was killed when it had removed objects to make others: run it again, or restore from %s what it removed and then remove that directory", source.Inode, path)
}

func savedOf(path string) (images.Source, error) {
	dir, err := images.OpenDir(path)
	if err != nil {
		return images.Source{}, err
	}
	defer dir.Close()
	numbers, err := dir.Numbers()
	if err != nil {
		return images.Source{}, err
	}
	if len(numbers) == 0 {
		return images.Source{}, fs.ErrNotExist
	}
	set, err := dir.Set(int64(numbers[0]))
	if err != nil {
		return images.Source{}, err
	}
	if set.Manifest == nil {
		return images.Source{}, fmt.Errorf("%s: %w", images.ManifestName(numbers[0]), fs.ErrInvalid)
	}
	return set.Manifest.Namespace, nil
}
