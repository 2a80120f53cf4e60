package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// rule is what the record says about the image as a whole.
type rule int

const (
	each     rule = iota // nothing is known: the policy decides
	same                 // it was restored before
	older                // a later one was restored before
	later                // an earlier one was restored before
	stopped              // of this very namespace, nobody of the container runs
	running              // of this very namespace, and what changed since is in doubt
	rollback             // what is there gives way to the image
	again                // it was restored before, and its container ran
)

// past is what the record tells a restore, and what the restore tells it.
type past struct {
	file   *record.File // nil where it is only read
	record *record.Record
	from   nsenter.Identity // the source, as the image claims it
	now    record.Snapshot
	rule   rule
	within bool // the source is the namespace itself

	before  record.Snapshot // restored last
	objects record.Objects  // of it
	begun   *record.Pending // what an interrupted restore was about
	ran     *record.Ran     // an earlier restore of this checkpoint, nil for none
	setBack bool            // the clock was set back since ran, as far as that shows
	undone  *record.Source  // the source before this run, nil for none
	keep    bool            // this run goes into the record
	wrote   bool            // and is in it, as pending
	options *RestoreOptions // for the choices

	// carried finds objects, by the kind's name and their own.
	carried map[string]map[string]*record.Object
}

// recall reads the record. Afterwards r.past is nil where there is none to keep.
func (r *restore) recall(ctx context.Context) error {
	from, now, err := claimed(r.set.Manifest, r.opt.Dir)
	if err != nil {
		r.warnings = append(r.warnings, err.Error())
	}
	if now.Boottime == 0 {
		return nil
	}
	if err := r.inTime(from, now); err != nil {
		return r.withoutRecord(err)
	}
	p := &past{from: from, now: now, options: &r.opt}
	if err := p.open(ctx, r); err != nil {
		return r.withoutRecord(err)
	}
	p.judge(identity(r.source))
	r.past = p
	if p.ran != nil {
		p.setBack, err = setBack(p.ran)
	}
	return err
}

// setBack reports whether the clock that stamps objects was set back since a container
// ran.
func setBack(ran *record.Ran) (bool, error) {
	uptime, err := boottime()
	if err != nil {
		return false, err
	}
	second, err := stampSecond()
	const slack = 2 // seconds: the two clocks are read one after the other, in parts of a second
	return second-uptime/1e9 < ran.Second-ran.Uptime/1e9-slack, err
}

// inTime refuses a checkpoint of this boot that is not taken yet: it would make all
// others of its source older ones.
func (r *restore) inTime(from nsenter.Identity, now record.Snapshot) error {
	if from.BootID != r.source.BootID {
		return nil
	}
	uptime, err := boottime()
	if err != nil || now.Boottime <= uptime {
		return err
	}
	return fmt.Errorf("%s: boottime_ns %d is in the future", images.ManifestName(r.set.Number), now.Boottime)
}

// claimed returns what the JSON file says of the source, with a zero Snapshot
// where it says nothing that can be used.
func claimed(m *images.Manifest, dir string) (from nsenter.Identity, now record.Snapshot, err error) {
	const longest = 64 // a boot id is a UUID
	if m == nil || m.Boottime <= 0 || m.Namespace.BootID == "" || m.Method == methodReplace {
		return from, now, nil // what a restore has removed is no checkpoint
	}
	if len(m.Namespace.BootID) > longest {
		return from, now, errors.New("the JSON file's boot id is none: what is restored is not recorded")
	}
	return identity(m.Namespace), record.Snapshot{Boottime: m.Boottime, Created: m.Created, Dir: dir}, nil
}

func identity(s images.Source) nsenter.Identity {
	id := nsenter.Identity{BootID: s.BootID, ID: s.ID, Inode: s.Inode}
	for _, task := range s.Tasks {
		id.Tasks = append(id.Tasks, nsenter.Task{PID: task.PID, Start: task.Start})
	}
	return id
}

// open claims and reads the record.
func (p *past) open(ctx context.Context, r *restore) (err error) {
	dir, err := r.prelude.state()
	if err != nil {
		return err
	}
	target := identity(r.source)
	switch {
	case r.opt.DryRun:
		p.record, err = record.Read(dir, target)
	case r.opt.Fresh:
		p.file, p.record = record.Unshared(dir, target), &record.Record{Target: target}
	default:
		if p.file, err = record.Open(ctx, dir, target); err == nil {
			r.recordFile = p.file
			p.record, err = p.file.Read()
		}
	}
	if errors.Is(err, record.ErrDamaged) && r.opt.OnConflict != Adopt {
		r.warnings = append(r.warnings, "a new record is begun: "+err.Error())
		err = nil
	}
	return err
}

// unknowable tells of errors that make it impossible to tell what was restored before.
func unknowable(err error) bool {
	return errors.Is(err, record.ErrDamaged) || errors.Is(err, state.ErrBusy) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// withoutRecord reports whether the restore can go on without one.
func (r *restore) withoutRecord(err error) error {
	switch {
	case r.opt.Record == RecordRequired || unknowable(err):
		return fmt.Errorf("what was restored into %s before is not to be known: %w", r.ns, err)
	case r.opt.Record == RecordOptional && errors.Is(err, state.ErrNowhere):
		return nil
	}
	r.warnings = append(r.warnings, "what is restored is not recorded, so a later restore may bring it back: "+err.Error())
	return nil
}

// judge finds the rule.
func (p *past) judge(target nsenter.Identity) {
	if source := p.record.Source(p.from); source != nil {
		before := *source
		p.undone = &before
		p.fold(source)
		p.before, p.objects, p.begun = source.Snapshot, source.Objects, source.Pending
		p.ran = source.RanAfter(p.now.Boottime)
	}
	p.carried = map[string]map[string]*record.Object{}
	for name, objects := range p.objects {
		p.carried[name] = record.ByName(objects)
	}
	p.within = p.from.Same(target)
	if p.options.OnConflict == Adopt {
		p.rule = p.ruleFor(p.within)
	}
}

// fold takes an interrupted restore that had made all its objects for done:
// some may have been used already. What it was to remove may still be there.
func (p *past) fold(s *record.Source) {
	if s.Pending == nil || !s.Pending.Sealing {
		return
	}
	all := record.Objects{}
	for name := range s.Objects {
		all[name] = nil
	}
	for name := range s.Pending.Makes {
		all[name] = nil
	}
	for name := range all {
		for _, list := range [][]record.Object{s.Pending.Makes[name], s.Pending.Leaves[name], s.Objects[name]} {
			all[name] = append(all[name], list...)
		}
		all[name] = unique(all[name])
	}
	s.Snapshot, s.Objects = s.Pending.Snapshot, all
}

// unique keeps the first object of each name.
func unique(objects []record.Object) []record.Object {
	seen := make(map[string]bool, len(objects))
	kept := objects[:0]
	for _, o := range objects {
		if !seen[o.Name] {
			seen[o.Name] = true
			kept = append(kept, o)
		}
	}
	return kept
}

func (p *past) ruleFor(inPlace bool) rule {
	switch {
	case p.begun != nil && p.before.Boottime == p.now.Boottime && p.ran == nil:
		return same // to be completed
	case p.ran != nil && p.options.Again == AgainRollback: // also to complete a rollback: it may not have come to all
		return rollback
	case p.ran != nil && p.options.Again != AgainKeep:
		return again
	case inPlace && p.options.InPlace == InPlaceRollback && p.ran == nil:
		return rollback
	case inPlace && !p.record.WasLeftRunning(p.now.Boottime):
		return p.ruleForStopped()
	case inPlace:
		return running
	case p.before.Boottime == 0:
		return each
	case p.now.Boottime == p.before.Boottime:
		return same
	case p.now.Boottime < p.before.Boottime:
		return older
	}
	return later
}

// ruleForStopped is the rule in place. An earlier checkpoint that was restored
// there says nothing about chosen objects: this one was taken after it.
func (p *past) ruleForStopped() rule {
	switch {
	case !p.options.Selected && p.options.InPlace == InPlaceRefuse:
		return running // a word of its own
	case !p.options.Selected:
		return stopped
	case p.now.Boottime == p.before.Boottime:
		return same
	case p.now.Boottime < p.before.Boottime:
		return older
	}
	return each
}

// completes reports whether the namespace's limits may become the image's: not where
// it was filled before.
func (p *past) completes() bool {
	return p == nil || p.rule == each || p.rule == same && p.begun != nil
}

// said is the rule for a person, "" where there is none.
func (p *past) said() string {
	if p == nil {
		return ""
	}
	switch p.rule {
	case same:
		if p.begun != nil {
			return "a restore of " + p.now.String() + " was interrupted: it is completed"
		}
		return p.now.String() + " was restored before: nothing is made"
	case older:
		return p.before.String() + ", a later one, was restored before: nothing is made"
	case later:
		return p.before.String() + " was restored before: the difference is made"
	case stopped:
		return "the checkpoint is of this very namespace, whose objects are still there: nothing is made"
	case running:
		return "the checkpoint is of this very namespace: what has changed since is not to be lost"
	case rollback:
		return "what has changed since is made as the checkpoint has it"
	case again:
		return p.now.String() + " was restored before, and its container ran"
	}
	return ""
}
