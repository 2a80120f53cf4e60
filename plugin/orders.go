package plugin

import (
	"slices"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
)

// wanted is what a kind is asked for. A person's explicit word, Fail or Replace,
// is not bound by the record.
func (r *restore) wanted(name string, image kind.Image) kind.Wanted {
	w := kind.Wanted{Policy: r.opt.OnConflict, Record: r.past != nil && !r.opt.DryRun}
	if r.opt.OnConflict != Adopt {
		return w
	}
	// In the host's namespace somebody may be waiting for messages in the kernel.
	w.Fill = !r.host
	// A chosen object that is where it was checkpointed is that very object.
	if r.opt.Existing != ExistingAdopt && !(r.opt.Selected && r.past != nil && r.past.within) {
		w.Policy = Fail
	}
	if r.past == nil {
		return w
	}
	if r.past.rule == rollback {
		w.Policy = Replace
	}
	w.Now, w.Before = r.past.now.String(), r.past.before.String()
	w.Orders, w.Gone = r.past.orders(name, image.Objects())
	return w
}

// orders decides about each object of the image, and about those that the image
// does not have any more.
func (p *past) orders(name string, image []record.Object) (orders, gone []kind.Order) {
	if p.rule == each && p.begun == nil {
		return nil, nil
	}
	begun := p.begunOf(name)
	orders = make([]kind.Order, len(image))
	for i := range image {
		orders[i] = p.order(p.carried[name][image[i].Name], &image[i])
		if p.rule == again {
			orders[i] = p.rest(name, &image[i])
		}
		orders[i].Begun = begun[image[i].Name]
		orders[i].Missing = p.begun != nil && !p.begun.Sealing
	}
	if p.rule != later && p.begun == nil || p.rule == older {
		return orders, nil
	}
	return orders, p.gone(name, record.ByName(image), begun)
}

// begunOf returns what an interrupted restore was making. An older image than the
// one restored last does not complete it.
func (p *past) begunOf(name string) map[string]*record.Object {
	if p.begun == nil || p.rule == older {
		return nil
	}
	return record.ByName(p.begun.Makes[name])
}

func (p *past) order(was, now *record.Object) kind.Order {
	switch p.rule {
	case same:
		if was == nil && p.options.Selected {
			return kind.Order{} // it was not chosen when the others were restored
		}
		return kind.Order{Do: kind.Stay, Reason: "restored before from " + p.before.String() + ": left alone"}
	case older:
		return kind.Order{Do: kind.Stay, Reason: "restored before from " + p.before.String() + ", which is later: left alone"}
	case stopped:
		return kind.Order{Do: kind.Stay, Reason: "the checkpoint is of this very namespace: left alone"}
	case running:
		about := "which is of this very namespace"
		if p.record.WasLeftRunning(p.now.Boottime) {
			about = "after which its container went on"
		}
		return kind.Order{Do: kind.Hold, Reason: about, Forgive: p.options.InPlace == InPlaceKeep}
	case later:
		return p.difference(was, now)
	}
	return kind.Order{}
}

// rest wants an object not to have been used since the checkpoint was restored.
func (p *past) rest(name string, now *record.Object) kind.Order {
	order := kind.Order{Do: kind.Rest, Was: p.carried[name][now.Name], Absent: slices.Contains(p.ran.Absent[name], now.Name)}
	if !p.setBack {
		order.Since = p.ran.Second
	}
	return order
}

// difference is what changed from one checkpoint to a later one.
func (p *past) difference(was, now *record.Object) kind.Order {
	forgive := p.options.Later == LaterKeep
	switch {
	case was == nil:
		return kind.Order{Do: kind.Decide, Forgive: forgive}
	case was.Same(now):
		return kind.Order{Do: kind.Stay, Reason: "the same in " + p.before.String() + ", restored before: left alone"}
	}
	return kind.Order{Do: kind.Update, Was: was, Forgive: forgive}
}

// gone is what is not in the image but was before, or was being made.
func (p *past) gone(name string, image, begun map[string]*record.Object) (gone []kind.Order) {
	// What is to be completed was decided before it was interrupted.
	forgive := p.options.Later == LaterKeep || p.rule != later
	for i := range p.objects[name] {
		o := &p.objects[name][i]
		if image[o.Name] != nil {
			continue
		}
		order := kind.Order{Begun: begun[o.Name]}
		if p.rule == later || p.rule == same {
			order.Do, order.Was, order.Forgive = kind.Update, o, forgive
		}
		gone = append(gone, order)
	}
	if p.begun == nil {
		return gone
	}
	for i := range p.begun.Makes[name] {
		o := &p.begun.Makes[name][i]
		if image[o.Name] == nil && p.carried[name][o.Name] == nil {
			gone = append(gone, kind.Order{Begun: o})
		}
	}
	return gone
}
