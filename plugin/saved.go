package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// What a restore removes to make others in its place is saved first, whole, as
// images in a directory of the namespace's own. Should a later step fail it is made
// again from there. The images go when the restore is complete; where ipc-cr is killed
// before that they stay, for a second run of the restore, or for a person.

// methodReplace is what the JSON file names as the method of such images.
const methodReplace = "replace"

// saved is such a directory. A nil saved is none.
type saved struct {
	dir    *images.Dir
	lock   *state.Lock // nil without a state directory
	older  []uint32    // numbers of the images that killed runs of this restore left, ascending
	number uint32      // of this run's
	closed bool
}

// openSaves opens the directory where something is going to be removed, or was by a
// killed run that this one completes. It waits for others that look at what was left.
func (r *restore) openSaves(ctx context.Context, wait time.Duration) (err error) {
	completes := r.past != nil && r.past.begun != nil && r.past.begun.Snapshot.Boottime == r.past.now.Boottime
	if r.saved != nil || !r.removes() && !completes {
		return nil
	}
	if r.saved, err = r.openSaved(ctx, completes, wait); err != nil {
		return fmt.Errorf("save what is to be replaced, nothing was changed: %w", err)
	}
	return nil
}

// save saves what is going to be removed. It changes nothing.
func (r *restore) save(ctx context.Context, k kernel.Kernel) error {
	if err := r.openSaves(ctx, glance); err != nil || !r.removes() {
		return err
	}
	for {
		err := r.saveInto(ctx, k, r.saved.dir.Stage(r.saved.number, os.Geteuid(), os.Getegid()))
		if errors.Is(err, kind.ErrWalk) {
			if err := r.copying.distrust(err); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			err = r.mayPutBack(ctx, k)
		}
		if err != nil {
			return fmt.Errorf("save what is to be replaced, nothing was changed: %w", err)
		}
		return nil
	}
}

// mayPutBack reports, by its error, whether the limits would allow to make again what
// was saved. Only in the host's namespace they are what they are.
func (r *restore) mayPutBack(ctx context.Context, k kernel.Kernel) error {
	if !r.host {
		return nil
	}
	err := r.eachSaved(ctx, r.saved.number, func(_ string, image kind.Image) error {
		needs := image.Needs()
		for _, name := range slices.Sorted(maps.Keys(needs)) {
			if err := r.Limits.May(k, name, needs[name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, r.saved.dir.RemoveSet(r.saved.number))
	}
	return nil
}

func (r *restore) removes() bool {
	return slices.ContainsFunc(r.plans, func(p kind.Plan) bool { return p.Removes().Objects > 0 })
}

// roomToSave reports, by its error, whether there is room for what is going to be
// removed.
func (r *restore) roomToSave() error {
	var bytes int64
	for _, plan := range r.plans {
		if size := plan.Removes(); size.Objects > 0 {
			bytes += size.Bytes + size.Messages*entryBytes + int64(size.Objects)*entryBytes + imageBytes
		}
	}
	if bytes == 0 {
		return nil
	}
	path := r.savedParent()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("save what is to be replaced: statfs %s: %w", path, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < bytes {
		return fmt.Errorf("save what is to be replaced: it takes %d bytes, and %s has %d: make room there, or remove the objects beforehand: %w", bytes, path, free, unix.ENOSPC)
	}
	return nil
}

// What an object or a message takes in an image beside its payload at most, and the
// files of an image beside their entries.
const (
	entryBytes = 256
	imageBytes = 16 << 10
)

func (r *restore) saveInto(ctx context.Context, k kernel.Kernel, stage *images.Stage) (err error) {
	defer func() {
		if err != nil {
			stage.Discard()
		}
	}()
	all := map[string]images.Details{}
	for i, plan := range r.plans {
		details, err := plan.Save(ctx, &r.Target, k, stage)
		if err != nil {
			return err
		}
		if details != nil {
			all[r.opt.Kinds[i].Name()] = details
		}
	}
	now, err := boottime()
	if err != nil {
		return err
	}
	manifest := &images.Manifest{
		Format: images.ManifestFormat, Number: r.saved.number, Method: methodReplace,
		Created: time.Now().UTC().Truncate(time.Second), Boottime: now, Namespace: r.source,
	}
	if err := stage.Describe(manifest, all); err != nil {
		return err
	}
	return stage.Commit()
}

// putBack makes again what was removed, whatever ended the restore: the latest first,
// because what is there then is not what an earlier run saved. Nothing that is saved
// is forgotten before it is there again.
func (r *restore) putBack(ctx context.Context, k kernel.Kernel) error {
	if r.saved == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	for _, n := range slices.Backward(append(slices.Clone(r.saved.older), r.saved.number)) {
		names, err := r.saved.dir.Holds(n)
		if err == nil && len(names) == 0 {
			continue // nothing was to be removed
		}
		if err == nil {
			err = r.eachSaved(ctx, n, func(name string, image kind.Image) error { return r.makeAgain(ctx, k, name, image) })
		}
		if err != nil {
			return fmt.Errorf("what was removed is not all there again: %w: it is saved in %s (restore it from there, then remove the directory)", err, r.saved.dir.Path())
		}
	}
	return r.saved.remove()
}

// eachSaved calls a function for what one run has saved, kind by kind.
func (r *restore) eachSaved(ctx context.Context, number uint32, do func(name string, image kind.Image) error) error {
	set, err := r.saved.dir.Set(int64(number))
	if err != nil {
		return err
	}
	for _, of := range r.opt.Kinds {
		image, err := of.Load(ctx, set, r.Owner)
		if err != nil {
			return err
		}
		if err = set.Ready(); err == nil {
			err = do(of.Name(), image)
		}
		if err := errors.Join(err, image.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) makeAgain(ctx context.Context, k kernel.Kernel, name string, image kind.Image) error {
	t := r.Target
	t.Done = nil
	plan, err := image.Plan(ctx, &t, k, kind.Wanted{Policy: Fail, Missing: true, Record: true})
	if err != nil {
		return err
	}
	if conflicts := plan.Steps(func(a Action) bool { return a == ActionConflict }); len(conflicts) > 0 {
		return fmt.Errorf("%s: %s", conflicts[0].Object, conflicts[0].Reason)
	}
	for name, least := range plan.Needs() {
		if err := r.Limits.Raise(k, name, least); err != nil {
			return err
		}
	}
	if err := plan.Make(ctx, &t, k); err != nil {
		return errors.Join(err, plan.Undo(k))
	}
	if err := plan.Seal(&t, k); err != nil {
		return err
	}
	r.past.renew(name, plan.Objects())
	return nil
}

// remove removes the images that are this restore's: nothing in them is needed any
// more.
func (s *saved) remove() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, n := range append(slices.Clone(s.older), s.number) {
		errs = append(errs, s.dir.RemoveSet(n))
	}
	return errors.Join(errs...)
}

// close closes the directory, and removes it if nothing is in it.
func (s *saved) close() error {
	if s == nil || s.closed {
		return nil
	}
	s.closed = true
	err := s.dir.Close()
	if rmdir := unix.Rmdir(s.dir.Path()); rmdir != nil && !errors.Is(rmdir, unix.ENOTEMPTY) {
		err = errors.Join(err, fmt.Errorf("remove %s: %w", s.dir.Path(), rmdir))
	}
	return errors.Join(err, s.lock.Release())
}
