package ipcvar

import (
	"context"
	"fmt"
	"math"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
)

// image is a checked ipcns-var image.
type image struct {
	vars *images.Vars
}

// limit is one of the sysctls that a restore sets.
type limit struct {
	name  string
	value int64
}

// limits are the sysctls that bound message queues.
func (img *image) limits() []limit {
	return []limit{
		{"kernel.msgmax", int64(img.vars.MsgMax)},
		{"kernel.msgmnb", int64(img.vars.MsgMnb)},
		{"kernel.msgmni", int64(img.vars.MsgMni)},
	}
}

// maxMsgmni is the most that any kernel takes for msgmni (IPCMNI_EXTEND,
// ipc/util.h).
const maxMsgmni = 1 << 24

// bounds refuses values that no kernel takes.
func bounds(v *images.Vars) error {
	switch {
	case v.MsgMax > math.MaxInt32:
		return fmt.Errorf("msgmax %d is above %d", v.MsgMax, math.MaxInt32)
	case v.MsgMnb > math.MaxInt32:
		return fmt.Errorf("msgmnb %d is above %d", v.MsgMnb, math.MaxInt32)
	case v.MsgMni > maxMsgmni:
		return fmt.Errorf("msgmni %d is above %d", v.MsgMni, maxMsgmni)
	}
	return nil
}

// Size implements kind.Image.
func (img *image) Size() kind.Size { return kind.Size{} }

// Objects implements kind.Image: sysctls are not recorded.
func (img *image) Objects() []record.Object { return nil }

// Plan implements kind.Image.
func (img *image) Plan(_ context.Context, _ *kind.Target, k kernel.Kernel, _ kind.Wanted) (kind.Plan, error) {
	const usual = 1 << 15 // what every kernel takes
	if img.vars.MsgMni <= usual {
		return &plan{image: img}, nil
	}
	if most := uint32(1) << k.IndexBits(); img.vars.MsgMni > most {
		return nil, fmt.Errorf("set kernel.msgmni to %d: this kernel's most is %d (see ipcmni_extend in kernel-parameters)", img.vars.MsgMni, most)
	}
	return &plan{image: img}, nil
}

// Close implements kind.Image: the file was read and closed.
func (img *image) Close() error { return nil }

// plan sets the limits: raised before the first object is made, and as the image
// says when the last one is complete. It makes no objects.
type plan struct {
	image *image
	empty bool
}

// Steps implements kind.Plan.
func (p *plan) Steps(func(kind.Action) bool) []kind.Step { return nil }

// Objects implements kind.Plan.
func (p *plan) Objects() []record.Object { return nil }

// Absent implements kind.Plan.
func (p *plan) Absent() []string { return nil }

// Needs implements kind.Plan.
func (p *plan) Needs() kind.Needs { return nil }

// Strangers implements kind.Plan.
func (p *plan) Strangers() int { return 0 }

// May implements kind.Plan: of the limits that are not yet as they will have to be.
func (p *plan) May(k kernel.Kernel, s kind.Situation) error {
	for _, l := range p.image.limits() {
		now, err := k.Sysctl(l.name)
		if err != nil {
			return err
		}
		if now[0] >= s.Needs[l.name] && (!s.Empty || now[0] == l.value) {
			continue
		}
		if err := k.MaySetSysctl(l.name); err != nil {
			return fmt.Errorf("%w (needs euid 0 of the user namespace that owns the namespace, or CAP_SETUID to become it, and a writable /proc/sys)", err)
		}
	}
	return nil
}

// Begin implements kind.Plan. In an empty namespace the limits become the
// image's, elsewhere they are raised only as far as the objects need.
func (p *plan) Begin(k kernel.Kernel, t *kind.Target, s kind.Situation) error {
	p.empty = s.Empty
	for _, l := range p.image.limits() {
		if err := t.Limits.Raise(k, l.name, s.Needs[l.name]); err != nil {
			return err
		}
	}
	return nil
}

// Removes implements kind.Plan: there are no objects.
func (p *plan) Removes() kind.Size { return kind.Size{} }

// Save implements kind.Plan: no image is complete without the limits.
func (p *plan) Save(ctx context.Context, t *kind.Target, k kernel.Kernel, stage *images.Stage) (images.Details, error) {
	now, err := read(k)
	if err != nil {
		return nil, err
	}
	return now.Copy(ctx, t, k, stage)
}

// Make implements kind.Plan.
func (p *plan) Make(context.Context, *kind.Target, kernel.Kernel) error { return nil }

// Check implements kind.Plan.
func (p *plan) Check(*kind.Target, kernel.Kernel) error { return nil }

// Seal implements kind.Plan: the limits come last, because they may be lower
// than what the objects needed.
func (p *plan) Seal(t *kind.Target, k kernel.Kernel) error {
	if !p.empty {
		return nil
	}
	for _, l := range p.image.limits() {
		if err := t.Limits.Keep(k, l.name, l.value); err != nil {
			return err
		}
	}
	return nil
}

// Undo implements kind.Plan: the engine's Keeper puts the limits back.
func (p *plan) Undo(kernel.Kernel) error { return nil }
