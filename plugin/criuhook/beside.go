package criuhook

import (
	"context"
	"fmt"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/infront"
)

// saveBeside writes the images itself: CRIU sits in the namespace, takes it for
// its own and has left it alone. The neighbours stand still for the copy only.
func (r *run) saveBeside(ctx context.Context, ns *nsenter.Namespace) error {
	placed, err := infront.Beside(r.CRIU.PID, r.InitPID)
	if err != nil {
		return err
	}
	if !placed {
		return r.notOurs(ns)
	}
	neighbours, err := r.family().neighbours(ns)
	if err != nil {
		return err
	}
	report, err := infront.Save(ctx, plugin.CheckpointOptions{
		Kinds: r.Kinds, Namespace: ns, Dir: r.path(), Freeze: true, Exempt: r.family().has,
	})
	if err != nil {
		return err
	}
	r.warnings(report.Warnings)
	total := sum(report.Objects)
	r.say("%s, %s saved beside CRIU", count(total.Objects, "queue"), count(int(total.Messages), "message"))
	if neighbours > 0 && report.Frozen != nil {
		r.say("%s of neighbours stood still for %s", count(report.Frozen.Tasks, "task"), round(report.Frozen.Duration))
	}
	return r.watch(report.Number)
}

// notOurs warns of a container that shares an IPC namespace with CRIU, and so
// with whoever started it: CRIU saves nothing of it, and restores the container
// into the namespace that it runs in then.
func (r *run) notOurs(ns *nsenter.Namespace) error {
	size, err := plugin.Count(ns, r.Kinds)
	if err == nil && size.Objects > 0 {
		r.warn("the container shares %s with CRIU: its %s are not saved", ns, count(size.Objects, "queue"))
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", ns, err)
	}
	return nil
}
