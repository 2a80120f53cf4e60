package criuhook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/config"
)

// The host's IPC namespace is everybody's. CRIU runs in it, so it takes it for
// its own, and neither dumps nor restores anything of it. Here it is only touched
// as far as the configuration selects, and nobody in it is ever stopped.

const inHost = "the container is in the host's IPC namespace: "

// chosen is the kinds as far as the configuration selects objects of the host's.
func (r *run) chosen() []plugin.Kind { return plugin.Select(r.Kinds, r.config.HostQueues.Has) }

// warnHost tells of a container in the host's IPC namespace whose queues are not
// saved.
func (r *run) warnHost(ns *nsenter.Namespace) error {
	all, others, err := plugin.CountAll(ns, r.Kinds)
	if err != nil {
		return err
	}
	r.warnPOSIX(others, true)
	if all.Objects == 0 {
		return nil
	}
	if len(r.config.HostQueues) == 0 {
		r.warn(inHost+"no queue is saved (host_queues in %s selects queues)", config.Path)
		return nil
	}
	some, err := plugin.Count(ns, r.chosen())
	if err == nil && some.Objects == 0 {
		r.warn(inHost+"no queue is saved, because host_queues in %s selects none that is there", config.Path)
	}
	return err
}

// saveHost writes the images of the selected queues under the number that CRIU
// gives to its own namespace, of which it writes none. Where there is nothing to
// save, an older dump's are replaced by ones without queues.
func (r *run) saveHost(ctx context.Context, ns *nsenter.Namespace) error {
	size, err := plugin.Count(ns, r.chosen())
	if err != nil {
		return err
	}
	number, old, err := r.hostImages()
	if size.Objects == 0 && !old && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		return nil
	}
	if err != nil {
		return err
	}
	var notSelected []string
	if size.Objects > 0 {
		notSelected = []string{inHost + "no queue is saved but those that host_queues selects"}
	}
	report, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{
		Method: plugin.Method(r.config.Method), Kinds: r.chosen(), Namespace: ns, Dir: r.path(), Number: number, Force: true,
		Warnings: slices.Concat(r.earlier, notSelected),
	})
	if err != nil {
		return fmt.Errorf("queues that host_queues selects: %w", err)
	}
	r.warnings(report.Warnings)
	r.warnings(notSelected)
	if total := sum(report.Objects); total.Objects > 0 {
		r.say("%s, %s of the host's saved", count(total.Objects, "queue"), count(int(total.Messages), "message"))
	}
	return r.watch(number)
}

// hostImages returns the number of the tasks' namespace, and whether the
// directory has images of it.
func (r *run) hostImages() (number uint32, old bool, err error) {
	dir, err := r.images()
	if err != nil {
		return 0, false, err
	}
	defer dir.Close()
	if number, err = dir.TaskIPCNumber(); err != nil {
		return 0, false, err
	}
	names, err := dir.Holds(number)
	return number, len(names) > 0, err
}

// ofCRIU reports whether a dump is of tasks in the IPC namespace of the CRIU that
// dumped them: they come back into the one in which CRIU runs then, and it looks
// at no image of it (criu/pstree.c, get_clone_mask; criu/namespaces.c,
// prepare_namespace).
func ofCRIU(dir *images.Dir) (bool, error) {
	tasks, err := dir.TaskIPCNumber()
	if err != nil {
		return false, err
	}
	criu, err := dir.InventoryIPCNumber()
	return criu == tasks, err
}

// restoreHost brings the selected queues of the images back.
func (r *run) restoreHost(ctx context.Context, ns *nsenter.Namespace, number uint32) error {
	some, err := r.forHost(number)
	if err != nil || !some {
		return err
	}
	if len(r.config.HostQueues) == 0 {
		r.warn(inHost+"no queue of the images is restored (host_queues in %s selects queues)", config.Path)
		return nil
	}
	opt := r.restoreOptions(ns, number)
	opt.Kinds, opt.Selected, opt.Host, opt.Record = r.chosen(), true, true, plugin.RecordRequired
	report, err := plugin.Restore(ctx, opt)
	if _, conflict := errors.AsType[*plugin.ConflictError](err); conflict {
		return fmt.Errorf("%w, or remove what is in the way (ipcrm -q), or take the queue out of host_queues", r.advise(err, ns))
	}
	if err != nil {
		return err
	}
	r.warn(inHost + "no queue is restored but those that host_queues selects")
	r.warnLeft(report.Steps)
	r.restored(report)
	return r.owe(report)
}

// forHost reports whether the images are of queues of the host's, and refuses those
// of another namespace.
func (r *run) forHost(number uint32) (bool, error) {
	dir, err := r.images()
	if err != nil {
		return false, err
	}
	defer dir.Close()
	shared, err := ofCRIU(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if !shared {
		return false, errors.New("the container had an IPC namespace of its own, and would come into the host's: refused")
	}
	tasks, err := dir.TaskIPCNumber()
	if err != nil || tasks != number {
		return false, err // what an older dump left
	}
	names, err := dir.Holds(number)
	return slices.Contains(names, images.FileName(images.MsgKind, number)), err
}

// warnLeft tells of queues that were saved, but are not selected any more.
func (r *run) warnLeft(steps []plugin.Step) {
	left := slices.DeleteFunc(slices.Clone(steps), func(s plugin.Step) bool { return s.Reason != plugin.NotSelected })
	if len(left) > 0 {
		r.warn("%s of the images not restored, %s first: host_queues in %s does not select them", count(len(left), "queue"), left[0].Object, config.Path)
	}
}
