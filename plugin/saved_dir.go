package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	name := savedPrefix + state.NamespaceName(r.source.ID, r.source.Inode)
	if r.source.ID == 0 {
		name += "-" + strconv.Itoa(os.Getpid())
	}
	return name
}

// openSaved opens the directory: with what a killed run of this restore left there
// if it completes that one, and with a number for this run that is free. It is in the
// state directory, or among the temporary files where there is none. nil where there
// is nothing to open.
func (r *restore) openSaved(ctx context.Context, completes bool, wait time.Duration) (*saved, error) {
	dir := r.prelude.locks()
	if dir == nil {
		return r.openTemporary()
	}
	path := dir.Join(r.savedName())
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !r.removes() {
		return nil, nil
	}
	lock, err := dir.AwaitLock(ctx, r.savedName(), "what was removed from "+r.ns.String()+" before", wait)
	if err != nil {
		return nil, err
	}
	s, err := openSaved(path, completes)
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

// temporaryPattern is that of os.MkdirTemp.
const temporaryPattern = "ipc-cr-" + savedPrefix + "*"

func (r *restore) openTemporary() (*saved, error) {
	if !r.removes() {
		return nil, nil
	}
	path, err := os.MkdirTemp("", temporaryPattern)
	if err != nil {
		return nil, err
	}
	return openSaved(path, false)
}

func openSaved(path string, completes bool) (*saved, error) {
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
		s.older = numbers
	}
	return s, nil
}

// recoverSaved tells of what killed restores have removed, and removes what is of
// namespaces that are gone. It shares the lock with others that look.
func recoverSaved(dir *state.Dir, names []string) (r state.Recovery) {
	for _, name := range names {
		if !strings.HasPrefix(name, savedPrefix) || strings.HasSuffix(name, state.LockSuffix) {
			continue
		}
		lock, err := dir.TryLock(name, true)
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

// recoverTemporary is recoverSaved where there is no state directory.
func recoverTemporary() (r state.Recovery) {
	paths, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPattern))
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue // another user's
		}
		dir, err := images.OpenDir(path)
		if err != nil {
			continue
		}
		if err = dir.Lock(); err == nil {
			err = leftSaved(path)
		} else {
			err = nil // a restore is under way
		}
		r.Warn(errors.Join(err, dir.Close()))
	}
	return r
}

// leftSaved is an error that tells of a directory with what a killed restore may have
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
	return fmt.Errorf("a restore into %s was killed while it put objects in the place of others, which are saved in %s: run it again, or restore from there; remove the directory when all is there that you want",
		nsenter.Name(source.Inode, false), path)
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
