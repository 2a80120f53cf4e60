package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
)

// restore is a restore under way.
type restore struct {
	*target
	opt       RestoreOptions
	prelude   *prelude
	set       *images.Set
	begun     chan *images.Set // for help
	images    []kind.Image
	plans     []kind.Plan
	situation kind.Situation
	copying   *copying
	saved     *saved // what is removed to make others, nil for nothing
	held      *hold
	warnings  []string

	past       *past        // nil without a record
	recordFile *record.File // claimed until the end
}

func (r *restore) run(ctx context.Context) (err error) {
	dir, err := images.OpenDir(r.opt.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if r.set, err = dir.BeginSet(r.opt.Number); err != nil {
		return err
	}
	r.begun <- r.set
	defer r.set.Prepare() // it may still be under way, and the directory is closed next
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.load(ctx); err != nil {
		return err
	}
	defer func() {
		if r.recordFile != nil {
			err = errors.Join(err, r.recordFile.Close())
		}
	}()
	if err := r.recall(ctx); err != nil {
		return err
	}
	if r.opt.Fresh {
		r.Limits.Unshared()
	}
	r.Walker = r.copying.walker
	defer r.watch(r.opt.Progress, r.total)()
	err = r.space.Here(func(k kernel.Kernel) error { return r.inside(ctx, k) })
	return errors.Join(err, r.Limits.PutBack(), r.held.release(), r.saved.close(), r.copying.close())
}

// help reads the JSON file in the goroutine that ran the prelude, which is awake,
// while the operation's thread reads the images.
func (r *restore) help() {
	if set := <-r.begun; set != nil {
		set.Prepare()
	}
}

// load looks at the namespace and checks the images, while the prelude puts right
// what the dead left.
func (r *restore) load(ctx context.Context) (err error) {
	if r.target, err = newTarget(r.opt.Namespace, r.opt.identify); err != nil {
		return err
	}
	for _, kind := range r.opt.Kinds {
		image, err := kind.Load(ctx, r.set, r.Owner)
		if err != nil {
			return err
		}
		r.images = append(r.images, image)
	}
	if err := r.set.Ready(); err != nil {
		return err
	}
	r.prelude.wait()
	root, _, err := r.root()
	if err != nil {
		return err
	}
	r.warnings = writers(r.set.Dir, root)
	if r.opt.Rest {
		return nil
	}
	for _, name := range r.set.Unopened() {
		r.warnings = append(r.warnings, fmt.Sprintf("%s holds objects of a kind that ipc-cr does not restore", name))
	}
	return nil
}

func (r *restore) close() error {
	var errs []error
	for _, image := range r.images {
		errs = append(errs, image.Close())
	}
	return errors.Join(errs...)
}

func (r *restore) total() (messages int64) {
	for _, image := range r.images {
		messages += image.Size().Messages
	}
	return messages
}

// inside does what is to be done in the namespace. What is there is compared with
// the image while all tasks run, because that may take long. If nothing is to be
// made, nobody is stopped; otherwise the plan is made again when all are, which
// is quick for what nobody has used meanwhile.
func (r *restore) inside(ctx context.Context, k kernel.Kernel) error {
	clock, err := newClock()
	if err != nil {
		return err
	}
	defer clock.close()
	if err := r.plan(ctx, k, clock); err != nil || r.opt.DryRun {
		return err
	}
	if err := r.openSaves(ctx, lockWait); err != nil {
		return err
	}
	if r.stops() {
		if err := r.freeze(ctx); err != nil {
			return err
		}
		bounded, end := r.held.bound(ctx, "the restore takes too long for the tasks that live in the namespace: stop them first")
		defer func() { _ = end() }() // carryOut looks while it can go back
		ctx = bounded
		if err := r.plan(ctx, k, clock); err != nil {
			return err
		}
	}
	return r.carryOut(ctx, k)
}

// stops reports whether the tasks of the namespace have to be stopped: what a
// neighbour creates under a raised limit would keep it, and its msgget(2) would
// take the wanted id. Nobody is in a fresh namespace, and nobody stops the host's.
func (r *restore) stops() bool { return !r.opt.Fresh && !r.host && r.changing() }

func (r *restore) freeze(ctx context.Context) (err error) {
	if err := r.Limits.PutBack(); err != nil { // nothing is raised while others are waited for
		return err
	}
	if r.held, err = r.target.freeze(ctx, holding{exempt: r.opt.Exempt, dir: r.prelude.locks(), wait: lockWait, limit: r.opt.frozen}); err != nil {
		return err
	}
	r.Frozen = r.held.doubt() == sure
	r.warnings = append(r.warnings, r.held.warnings()...)
	return nil
}

// carryOut does what is planned, all of it or nothing.
func (r *restore) carryOut(ctx context.Context, k kernel.Kernel) error {
	if err := r.save(ctx, k); err != nil {
		return err
	}
	err := r.begin()
	if err == nil {
		err = r.make(ctx, k)
	}
	if err == nil {
		err = context.Cause(ctx) // tasks may run since, under limits that are raised for the objects alone
	}
	if err != nil {
		undone := r.undo(k)
		back := r.putBack(ctx, k)
		return errors.Join(err, undone, back, r.unnote(back != nil))
	}
	// From the first seal on nothing is rolled back: the object may be in use.
	for _, plan := range r.plans {
		if err := plan.Seal(&r.Target, k); err != nil {
			return fmt.Errorf("%w (all objects are made and some may be in use, so they stay: run the restore again)", err)
		}
	}
	// What was removed goes first: a run that is killed here is completed by the next one,
	// and nobody is told to bring back what has been replaced.
	return errors.Join(r.saved.remove(), r.done())
}

// make makes all objects, still closed.
func (r *restore) make(ctx context.Context, k kernel.Kernel) error {
	for _, plan := range r.plans {
		if err := plan.Begin(k, &r.Target, r.situation); err != nil {
			return err
		}
	}
	for _, plan := range r.plans {
		if err := plan.Make(ctx, &r.Target, k); err != nil {
			return err
		}
	}
	for _, plan := range r.plans {
		if err := plan.Check(&r.Target, k); err != nil {
			return err
		}
	}
	return r.seals()
}

func (r *restore) undo(k kernel.Kernel) error {
	var errs []error
	for _, plan := range slices.Backward(r.plans) {
		errs = append(errs, plan.Undo(k))
	}
	return errors.Join(errs...)
}
