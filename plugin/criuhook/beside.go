package criuhook

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/infront"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// awaitTurn waits, while the container still runs, for another dump in the
// namespace: the copy of one must not stop the tasks that the CRIU of the other
// is about to stop. A namespace without neighbours has no other.
func (r *run) awaitTurn(ctx context.Context, ns *nsenter.Namespace) error {
	placed, err := infront.Beside(r.CRIU.PID, r.InitPID)
	if err != nil || !placed {
		return err
	}
	neighbours, err := r.family().neighbours(ns)
	if err != nil || neighbours == 0 {
		return err
	}
	w, err := r.warden()
	if err != nil {
		return fmt.Errorf("take the turn at %s: %w", ns, err)
	}
	if _, err := w.Hold(ctx, warden.HoldRequest{Namespace: ns, Init: r.InitPID, TurnOnly: true}); err != nil {
		return errors.Join(err, w.End())
	}
	return nil
}

// wardenPID is 0 where there is none.
func (r *run) wardenPID() int {
	w, err := warden.Find(r.CRIU, r.state)
	if err != nil {
		return 0
	}
	return w.PID()
}

// saveBeside writes the images itself: CRIU sits in the namespace, takes it for
// its own and has left it alone. The neighbours are frozen for the copy only.
func (r *run) saveBeside(ctx context.Context, ns *nsenter.Namespace) error {
	placed, err := infront.Beside(r.CRIU.PID, r.InitPID)
	if err != nil {
		return err
	}
	if !placed {
		return r.notOurs(ns)
	}
	family := r.family()
	family.warden = r.wardenPID()
	report, err := infront.Save(ctx, plugin.CheckpointOptions{
		Method: plugin.Method(r.config.Method), Kinds: r.Kinds, Namespace: ns, Dir: r.path(), Freeze: true, Exempt: family.has,
		Urgent: true, Turn: family.warden != 0, // which has it since pre-dump
		SkipPOSIX: true, Warnings: r.earlier,
	})
	if err != nil {
		return err
	}
	r.warnings(report.Warnings)
	total := sum(report.Objects)
	r.say("%s, %s saved beside CRIU", count(total.Objects, "queue"), count(int(total.Messages), "message"))
	if f := report.Frozen; f != nil && f.Tasks > 0 {
		r.say("%s of neighbours frozen for %s", count(f.Tasks, "task"), round(f.Duration))
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
