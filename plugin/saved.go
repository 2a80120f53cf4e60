package plugin

import (
	"context"
	"errors"
	"fmt"
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
	dir     *images.Dir
	lock    *state.Lock // nil without a state directory
	number  uint32      // of the images of this run
	numbers []uint32    // of all that are this restore's: a killed one's, and of this run
}

// save saves what is going to be removed. It changes nothing.
func (r *restore) save(ctx context.Context, k kernel.Kernel) (err error) {
	completes := r.past != nil && r.past.begun != nil && r.past.begun.Snapshot.Boottime == r.past.now.Boottime
	if !r.removes() && !completes {
		return nil
	}
	if r.saved, err = r.openSaved(completes, r.removes()); err != nil {
		return fmt.Errorf("save what is to be replaced, nothing was changed: %w", err)
	}
	for r.removes() {
		err := r.saveInto(ctx, k, r.saved.dir.Stage(r.saved.number, os.Geteuid(), os.Getegid()))
		if !errors.Is(err, kind.ErrWalk) {
			if err != nil {
				err = fmt.Errorf("save what is to be replaced, nothing was changed: %w", errors.Join(err, r.saved.close()))
			}
			return err
		}
		if err := r.copying.distrust(err); err != nil {
			return err
		}
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
	if free := int64(st.Bavail) * st.Bsize; free < bytes {
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

// putBack makes again what was removed, whatever ended the restore.
func (r *restore) putBack(ctx context.Context, k kernel.Kernel) error {
	if r.saved == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	var err error
	for _, n := range r.saved.numbers {
		err = errors.Join(err, r.putBackNumber(ctx, k, n))
	}
	if err == nil {
		return r.saved.remove()
	}
	path := r.saved.dir.Path()
	return errors.Join(fmt.Errorf("what was removed is not all there again: %w: it is saved in %s (restore it from there, then remove the directory)", err, path),
		r.saved.close())
}

// putBackNumber makes what one run has removed.
func (r *restore) putBackNumber(ctx context.Context, k kernel.Kernel, number uint32) (err error) {
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
			err = r.makeAgain(ctx, k, of.Name(), image)
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
	for _, n := range s.numbers {
		errs = append(errs, s.dir.RemoveSet(n))
	}
	return errors.Join(append(errs, s.close())...)
}

// close closes the directory, and removes it if nothing is in it.
func (s *saved) close() error {
	if s == nil {
		return nil
	}
	err := s.dir.Close()
	if rmdir := unix.Rmdir(s.dir.Path()); rmdir != nil && !errors.Is(rmdir, unix.ENOTEMPTY) {
		err = errors.Join(err, fmt.Errorf("remove %s: %w", s.dir.Path(), rmdir))
	}
	return errors.Join(err, s.lock.Release())
}
