package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// plan compares the image with the namespace and decides. What stands in the way
// is an error, but in a dry run.
func (r *restore) plan(ctx context.Context, k kernel.Kernel, clock *clock) error {
	began, err := clock.second()
	if err != nil {
		return err
	}
	anew := clock.stepped()
	r.plans = nil
	r.situation = kind.Situation{Empty: !r.host && r.past.completes(), Needs: kind.Needs{}}
	for i, image := range r.images {
		w := r.wanted(r.opt.Kinds[i].Name(), image)
		w.Second, w.Anew = began, anew
		plan, err := image.Plan(ctx, &r.Target, k, w)
		if err != nil {
			return err
		}
		r.plans = append(r.plans, plan)
		r.situation.Needs.Merge(plan.Needs())
		r.situation.Empty = r.situation.Empty && plan.Strangers() == 0
	}
	counts, err := k.OtherKinds()
	if err != nil {
		return err
	}
	if counts != (kernel.Counts{}) {
		r.situation.Empty = false
	}
	return r.may(ctx, k)
}

// may refuses what cannot be done before anything is: all that is found out here a
// dry run finds out as well.
func (r *restore) may(ctx context.Context, k kernel.Kernel) error {
	for _, plan := range r.plans {
		if err := plan.May(k, r.situation); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.situation.Needs)) {
		if err := r.Limits.May(k, name, r.situation.Needs[name]); err != nil {
			return err
		}
	}
	if !r.opt.DryRun {
		if err := r.conflicts(); err != nil {
			return err
		}
	}
	if err := r.roomToSave(); err != nil || !r.opt.DryRun {
		return err
	}
	return r.mayStop(ctx)
}

func (r *restore) conflicts() error {
	conflicts := r.steps(func(a Action) bool { return a == ActionConflict })
	if len(conflicts) > 0 {
		return &ConflictError{Steps: conflicts, Remedy: r.remedy()}
	}
	return nil
}

// mayStop reports, by its error, whether the tasks could be stopped that a restore
// has to stop.
func (r *restore) mayStop(ctx context.Context) error {
	if !r.stops() {
		return nil
	}
	unreadable, err := freeze.May(ctx, r.ns.Inode(), r.idle(r.opt.Exempt))
	if err != nil {
		return fmt.Errorf("stop the tasks of %s: %w", r.ns, err)
	}
	return r.seesAll(unreadable)
}

func (r *restore) steps(wanted func(Action) bool) (steps []Step) {
	for _, plan := range r.plans {
		steps = append(steps, plan.Steps(wanted)...)
	}
	return steps
}
