package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// RestoreOptions says what to restore and where to.
type RestoreOptions struct {
	Kinds      []Kind
	Namespace  *nsenter.Namespace
	Fresh      bool   // made by nsenter.New for this restore, nobody can reach it yet
	Host       bool   // Namespace may be the host's: else that is refused (ErrHost)
	Dir        string // images directory
	Number     int64  // of the namespace in the names of the files, images.Auto for the only one
	OnConflict Policy
	DryRun     bool // tell what would be done
	// Exempt reports processes of the namespace that need not be stopped, because
	// they cannot run yet: those that CRIU is restoring. nil: none.
	Exempt func(pid int) bool
	// Rest says that somebody else restores the kinds that Kinds lacks, as CRIU
	// does. Else there is a warning where the directory holds such.
	Rest bool
	// Selected says that Kinds are those of Select: what a person has chosen is
	// wanted in the namespace. With Adopt, a checkpoint of this very namespace then
	// makes what is missing, unless this or a later checkpoint was restored since.
	Selected bool
	Progress Progress

	// What was saved once is restored once: with Adopt, the record of what was
	// restored into the namespace before decides. Fail and Replace are not bound by
	// it, but are recorded too.
	Record  RecordUse // what to do where no record can be kept
	InPlace InPlace   // a checkpoint of the namespace itself, "" is InPlaceRefuse
	Later   Later     // a later checkpoint than the last, "" is LaterRefuse

	openState func() (*state.Dir, error) // nil for the usual one
	identify  identifier                 // nil for Identity
}

// RestoreReport is what a restore did, or would do.
type RestoreReport struct {
	Dir       string         `json:"images_dir"`
	Number    uint32         `json:"ns_number"`
	Namespace images.Source  `json:"namespace"`
	Host      bool           `json:"host,omitempty"` // Namespace is the host's
	DryRun    bool           `json:"dry_run"`
	Image     []Kept         `json:"image"`
	Actions   map[Action]int `json:"actions"`
	Steps     []Step         `json:"steps"`
	LimitsSet bool           `json:"limits_set"`         // the namespace's limits became the image's
	Recorded  string         `json:"recorded,omitempty"` // what the record says of the image
	Frozen    *Frozen        `json:"frozen,omitempty"`
	Limits    []LimitChange  `json:"limits_raised,omitempty"`
	Warnings  []string       `json:"warnings,omitempty"`
	Duration  time.Duration  `json:"duration_ns"`
}

// ConflictError tells which objects stand in the way of a restore. Nothing was
// changed.
type ConflictError struct {
	Steps  []Step // those with ActionConflict
	remedy string
}

func (e *ConflictError) Error() string {
	first := e.Steps[0]
	more := ""
	if n := len(e.Steps) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more conflicts)", n)
	}
	return fmt.Sprintf("%s: %s%s: nothing was changed; %s", first.Object, first.Reason, more, e.remedy)
}

// Restore makes the objects of an images directory, CRIU's or ipc-cr's, in a
// namespace: all of them, or after an error none. The whole image, the
// privileges and what is in the namespace already are checked before the first
// object is made. Until the last one is complete nobody without CAP_IPC_OWNER
// can use them. Objects that are there already and equal are left alone, so that
// a rerun after a kill succeeds.
//
// Tasks that live in the namespace are stopped meanwhile, except the calling
// process, its ancestors and those of the host's namespace, into which nothing is
// restored unless Host is set.
//
// It needs CAP_SYS_ADMIN over the namespace, CAP_IPC_OWNER, CAP_SETUID,
// CAP_SETGID and CAP_SETPCAP for queues of other creators, the right to trace the
// namespace's tasks, and euid 0 of its user namespace to write its limits, which
// CAP_SETUID gives too.
func Restore(ctx context.Context, opt RestoreOptions) (*RestoreReport, error) {
	began := time.Now()
	if err := errors.Join(opt.valid(), opt.allowed()); err != nil {
		return nil, err
	}
	p := newPrelude()
	opt.prepare(p)
	r := &restore{opt: opt, prelude: p, begun: make(chan *images.Set, 1)}
	var beside sync.WaitGroup
	beside.Go(func() {
		p.run(ctx)
		r.help()
		if !opt.DryRun {
			p.sweep()
		}
	})
	err := opt.Namespace.Run(func() error { return r.run(ctx) })
	close(r.begun)
	beside.Wait()
	if closeErr := p.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("restore %s into %s: %w", opt.Dir, opt.Namespace, err)
	}
	took := time.Since(began)
	report := r.report()
	report.Duration = took
	report.Warnings = append(p.recovered, report.Warnings...)
	return report, nil
}

// valid refuses choices that there are not: they may come from a configuration.
func (o *RestoreOptions) valid() error {
	switch o.InPlace {
	case "", InPlaceRefuse, InPlaceKeep, InPlaceRollback:
	default:
		return fmt.Errorf("restore: in_place %q: choose refuse, keep or rollback", o.InPlace)
	}
	switch o.Later {
	case "", LaterRefuse, LaterKeep:
	default:
		return fmt.Errorf("restore: later %q: choose refuse or keep", o.Later)
	}
	return nil
}

// prepare says what the prelude has to find for a restore.
func (o *RestoreOptions) prepare(p *prelude) {
	p.openState = state.Default
	if o.DryRun {
		p.openState = state.Existing
	}
	if o.openState != nil {
		p.openState = o.openState
	}
}

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
			r.recordFile.Close()
		}
	}()
	if err := r.recall(ctx); err != nil {
		return err
	}
	if r.opt.Fresh {
		r.Limits.Unshared()
	}
	if !r.opt.Fresh && !r.opt.DryRun && !r.host {
		lock, err := r.lock(ctx)
		if err != nil {
			return err
		}
		if r.held, err = r.stop(ctx, lock, r.opt.Exempt); err != nil {
			return err
		}
	}
	defer r.watch(r.opt.Progress, r.total)()
	err = r.space.Here(func(k kernel.Kernel) error { return r.inside(ctx, k) })
	return errors.Join(err, r.Limits.PutBack(), r.held.release())
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

// inside does what is to be done in the namespace.
func (r *restore) inside(ctx context.Context, k kernel.Kernel) error {
	if err := r.plan(ctx, k); err != nil || r.opt.DryRun {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	if err := r.make(ctx, k); err != nil {
		return errors.Join(err, r.undo(k), r.unnote())
	}
	// From the first seal on nothing is rolled back: the object may be in use.
	for _, plan := range r.plans {
		if err := plan.Seal(&r.Target, k); err != nil {
			return fmt.Errorf("%w (all objects are made and some may be in use, so they stay: run the restore again)", err)
		}
	}
	return r.done()
}

func (r *restore) plan(ctx context.Context, k kernel.Kernel) error {
	r.situation = kind.Situation{Empty: !r.host && r.past.completes(), Needs: kind.Needs{}}
	for i, image := range r.images {
		plan, err := image.Plan(ctx, &r.Target, k, r.wanted(r.opt.Kinds[i].Name(), image))
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
	for _, plan := range r.plans {
		if err := plan.May(k, r.situation); err != nil {
			return err
		}
	}
	if r.opt.DryRun {
		return nil
	}
	return r.conflicts()
}

func (r *restore) conflicts() error {
	conflicts := r.steps(func(a Action) bool { return a == ActionConflict })
	if len(conflicts) > 0 {
		return &ConflictError{Steps: conflicts, remedy: r.past.remedy()}
	}
	return nil
}

func (r *restore) steps(wanted func(Action) bool) (steps []Step) {
	for _, plan := range r.plans {
		steps = append(steps, plan.Steps(wanted)...)
	}
	return steps
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

// instead are the actions that a person should know about: what the namespace
// held counted more than the image, or less.
var instead = map[Action]string{ActionAdopt: "adopted", ActionReplace: "replaced", ActionRemove: "removed"}

func (r *restore) report() *RestoreReport {
	report := &RestoreReport{
		Dir: r.opt.Dir, Number: r.set.Number, Namespace: r.source, Host: r.host, DryRun: r.opt.DryRun,
		Actions: map[Action]int{}, Steps: r.steps(func(Action) bool { return true }), LimitsSet: r.situation.Empty && !r.opt.DryRun,
		Recorded: r.past.said(), Frozen: r.held.report(), Limits: r.Limits.Changes(), Warnings: r.warnings,
	}
	for i, kind := range r.opt.Kinds {
		if size := r.images[i].Size(); size.Objects > 0 {
			report.Image = append(report.Image, Kept{Kind: kind.Name(), Size: size})
		}
	}
	for _, step := range report.Steps {
		report.Actions[step.Action]++
		if done := instead[step.Action]; done != "" {
			if r.opt.DryRun {
				done = "would be " + done
			}
			report.Warnings = append(report.Warnings, fmt.Sprintf("%s %s: %s", step.Object, done, step.Reason))
		}
	}
	return report
}
