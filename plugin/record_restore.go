package plugin

import (
	"errors"
	"maps"
	"slices"

	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
)

// keeps reports whether this restore changes the record.
func (p *past) keeps(makes bool) bool {
	if p == nil || p.file == nil || p.rule == older {
		return false
	}
	return makes || p.begun != nil || p.rule == each || p.rule == later
}

// changing reports whether anything is to be made or removed.
func (r *restore) changing() bool {
	return r.any(ActionMake, ActionRemake, ActionReplace, ActionFill, ActionRemove)
}

// any reports whether one of the actions is taken, without naming the objects:
// there can be very many.
func (r *restore) any(actions ...Action) (found bool) {
	r.steps(func(a Action) bool {
		found = found || slices.Contains(actions, a)
		return false
	})
	return found
}

// begin notes what is going to be made. In a fresh namespace nothing is left of
// a restore that is killed.
func (r *restore) begin() error {
	makes := r.changing()
	if !r.past.keeps(makes) {
		return nil
	}
	r.past.keep = true
	if r.opt.Fresh || !makes {
		return nil
	}
	pending := &record.Pending{Snapshot: r.past.now, Makes: record.Objects{}, Leaves: record.Objects{}}
	for i, plan := range r.plans {
		name := r.opt.Kinds[i].Name()
		for _, o := range plan.Objects() {
			if o.Left != nil {
				pending.Makes[name] = append(pending.Makes[name], o)
			} else {
				pending.Leaves[name] = append(pending.Leaves[name], r.past.carry(name, o))
			}
		}
	}
	r.past.record.AddSource(r.past.from).Pending = pending
	r.past.wrote = true
	return r.note()
}

// carry adds what an earlier restore left in an object that this one leaves
// alone, if it is the same in both checkpoints.
func (p *past) carry(name string, o record.Object) record.Object {
	if was := p.carried[name][o.Name]; was != nil && was.Same(&o) {
		o.Left = was.Left
	}
	return o
}

// note writes the record.
func (r *restore) note() error {
	err := r.past.file.Write(r.past.record)
	if err == nil {
		return nil
	}
	r.past.keep = false
	return r.withoutRecord(err)
}

// seals notes that all objects are made: from here on they may be in use, and one
// that is missing was removed by somebody.
func (r *restore) seals() error {
	if r.past == nil || !r.past.keep || !r.past.wrote {
		return nil
	}
	r.past.record.Source(r.past.from).Pending.Sealing = true
	return r.note()
}

// unnote takes back what begin noted. Where objects were removed that are not
// there again, it stays: a later run has to make those.
func (r *restore) unnote(lost bool) error {
	if r.past == nil || !r.past.keep || !r.past.wrote {
		return nil
	}
	if lost || r.any(ActionRemake) {
		r.past.record.Source(r.past.from).Pending.Sealing = false
		return r.note()
	}
	r.past.record.Restore(r.past.from, r.past.undone)
	return r.note()
}

// renew takes in what was left in objects that were made again when others could
// not be made in their place. They are as an earlier restore left them only where
// nobody had used them since, which is what a later checkpoint wants of those that
// it replaces.
func (p *past) renew(name string, again []record.Object) {
	if p == nil || p.undone == nil {
		return
	}
	made := record.ByName(again)
	objects := maps.Clone(p.undone.Objects)
	objects[name] = slices.Clone(objects[name])
	for i := range objects[name] {
		o := &objects[name][i]
		a := made[o.Name]
		switch {
		case a == nil || a.Left == nil:
		case p.rule == later && a.Same(o):
			o.Left = a.Left
		default:
			o.Left = nil
		}
	}
	p.undone.Objects = objects
}

// done notes what was restored.
func (r *restore) done() error {
	if r.past == nil || !r.past.keep {
		return nil
	}
	source := r.past.record.AddSource(r.past.from)
	*source = record.Source{Namespace: r.past.from, Snapshot: r.past.now, Objects: record.Objects{}, Ran: source.Ran}
	if r.opt.OnConflict != Adopt || r.past.rule == rollback { // all is as the checkpoint has it
		source.Forget(r.past.now.Boottime)
	}
	for i, plan := range r.plans {
		name := r.opt.Kinds[i].Name()
		objects := plan.Objects()
		for i := range objects {
			if objects[i].Left == nil {
				objects[i] = r.past.carry(name, objects[i])
			}
		}
		if len(objects) > 0 {
			source.Objects[name] = objects
		}
	}
	if err := r.note(); err != nil {
		return errors.Join(errors.New("the objects are restored, but that could not be recorded: run the restore again"), err)
	}
	return nil
}
