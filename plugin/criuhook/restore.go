package criuhook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// lost is what CRIU's own restore of queues does not bring back.
const lost = "CRIU restores the queues itself: their qbytes and creators are lost, and it refuses messages over 8192 bytes"

// preRestore is the moment before CRIU does anything: the queues' images are set
// aside, so that it finds none.
func (r *run) preRestore(context.Context) error {
	dir, err := r.images()
	if err != nil {
		return err
	}
	defer dir.Close()
	if shared, _ := ofCRIU(dir); shared {
		return nil // CRIU looks at no image of it
	}
	numbers, err := hasObjects(dir, images.MsgKind)
	if err != nil || len(numbers) == 0 {
		return err
	}
	var names []string
	for _, n := range numbers {
		names = append(names, images.FileName(images.MsgKind, n))
	}
	return r.setAside(names)
}

func (r *run) setAside(names []string) error {
	w, err := r.warden()
	if errors.Is(err, state.ErrNowhere) {
		r.leave(err)
		return nil
	}
	if err != nil {
		return err
	}
	err = w.SetAside(r.ImagesDir, names)
	switch {
	case errors.Is(err, warden.ErrReadOnly):
		r.leave(err)
		return w.End()
	case err != nil:
		return errors.Join(err, w.End())
	}
	return nil
}

// leave leaves the queues to CRIU.
func (r *run) leave(why error) {
	r.kept.LeftToCRIU = true
	r.warn("%v: %s", why, lost)
}

// postSetup is the moment at which the container's namespaces are what they will
// be, and its tasks do not run yet.
func (r *run) postSetup(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, r.endWarden()) }() // which puts the images back
	number, theirs, err := r.saved()
	if err != nil || number == nil {
		return err
	}
	ns, err := r.namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	if ns.IsHost() {
		return r.restoreHost(ctx, ns, *number)
	}
	if theirs {
		return r.afterCRIU(ns)
	}
	return r.restore(ctx, ns, *number)
}

// saved returns the number of the namespace that is to be restored, nil for none,
// and whether CRIU has restored its queues.
func (r *run) saved() (number *uint32, theirs bool, err error) {
	dir, err := r.images()
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	aside, err := dir.SetAside()
	if err != nil {
		return nil, false, err
	}
	numbers, err := dir.Numbers()
	if err != nil || len(numbers) == 0 {
		return nil, false, err
	}
	n, err := r.which(dir, numbers)
	if err != nil {
		return nil, false, err
	}
	names, err := dir.Holds(n)
	if err != nil {
		return nil, false, err
	}
	queues := images.FileName(images.MsgKind, n)
	there := slices.Contains(names, queues)
	if !there && !slices.Contains(names, images.ManifestName(n)) {
		return nil, false, nil
	}
	shared, _ := ofCRIU(dir)
	return &n, there && !shared && !slices.Contains(aside, queues), nil
}

// which chooses the namespace of the container's first process.
func (r *run) which(dir *images.Dir, numbers []uint32) (uint32, error) {
	if len(numbers) == 1 {
		return numbers[0], nil
	}
	return dir.TaskIPCNumber()
}

// afterCRIU looks at a namespace whose queues CRIU has restored. Without a state
// directory nobody knows what was restored into one that is shared.
func (r *run) afterCRIU(ns *nsenter.Namespace) error {
	if r.state != nil {
		return nil
	}
	neighbours, err := r.family().neighbours(ns)
	if err != nil || neighbours == 0 {
		return err
	}
	return fmt.Errorf("%s is shared with %s: %w", ns, count(neighbours, "process"), r.noState)
}

// restore brings the queues back.
func (r *run) restore(ctx context.Context, ns *nsenter.Namespace, number uint32) error {
	neighbours, err := r.family().neighbours(ns)
	if err != nil {
		return err
	}
	opt := r.restoreOptions(ns, number)
	if neighbours > 0 {
		opt.Record = plugin.RecordRequired
	}
	report, err := plugin.Restore(ctx, opt)
	if err != nil {
		return r.advise(err, ns)
	}
	r.restored(report)
	return r.owe(report)
}

func (r *run) restoreOptions(ns *nsenter.Namespace, number uint32) plugin.RestoreOptions {
	return plugin.RestoreOptions{
		Kinds: r.Kinds, Namespace: ns, Dir: r.path(), Number: int64(number),
		OnConflict: plugin.Adopt, Exempt: r.family().has, Rest: true, Record: plugin.RecordWanted,
		InPlace: plugin.InPlace(r.config.InPlace), Later: plugin.Later(r.config.Later),
		Again: plugin.Again(r.config.Again), Existing: plugin.Existing(r.config.Existing), Method: plugin.Method(r.config.Method),
	}
}

// restored says what a restore did, but not what it left alone: the hook is heard
// only where it has changed something.
func (r *run) restored(report *plugin.RestoreReport) {
	r.warnings(report.Warnings)
	total := sum(report.Image)
	if total.Objects == 0 {
		return
	}
	r.say("%s, %s: %s", count(total.Objects, "queue"), count(int(total.Messages), "message"), report.Done(plugin.ActionLeave))
	if report.Recorded != "" {
		r.say("%s", report.Recorded)
	}
	if f := report.Frozen; f != nil && f.Tasks > 0 {
		r.say("%s of neighbours frozen for %s", count(f.Tasks, "task"), round(f.Duration))
	}
}
