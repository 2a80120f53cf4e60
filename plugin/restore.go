package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// RestoreOptions says what to restore and where to.
type RestoreOptions struct {
	Kinds      []Kind // in the order in which they are opened and made
	Namespace  *nsenter.Namespace
	Fresh      bool   // made by nsenter.New for this restore, nobody can reach it yet
	Host       bool   // Namespace may be the host's: else that is refused (ErrHost)
	Dir        string // images directory
	Number     int64  // of the namespace in the names of the files, images.Auto for the only one
	OnConflict Policy // what to do about objects that are in the way
	DryRun     bool   // report what would be done
	Method     Method // how to copy what is compared or replaced; the default is MethodAuto
	// Selected says that Kinds are those of Select: what a person has chosen is
	// wanted in the namespace. With Adopt, a checkpoint of this very namespace then
	// makes what is missing, unless this or a later checkpoint was restored since.
	Selected bool
	Progress Progress // nil: nobody is told

	// For callers that run inside CRIU's actions; others leave these at zero.

	// Exempt reports processes of the namespace that need not be stopped, because
	// they cannot run yet: those that CRIU is restoring. nil: none. It is called from
	// another goroutine, with the pid as /proc shows it.
	Exempt func(pid int) bool
	// Rest says that somebody else restores the kinds that Kinds lacks, as CRIU
	// does. Else there is a warning where the directory holds such.
	Rest bool

	// What was saved once is restored once: with Adopt, the record of what was
	// restored into the namespace before decides. Fail and Replace are not bound by
	// it, but are recorded too.
	Record  RecordUse // what to do where no record can be kept
	InPlace InPlace   // a checkpoint of the namespace itself
	Later   Later     // a later checkpoint than the last, "" is LaterRefuse
	Again   Again     // a checkpoint that was restored before, "" is AgainRefuse
	// Existing decides about what is there and differs, and was not restored. ""
	// is ExistingRefuse.
	Existing Existing

	openState func() (*state.Dir, error) // nil for the usual one
	identify  identifier                 // nil for Identity
	frozen    time.Duration              // for how long tasks are at most, 0 for frozenLimit
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
	Restored  *Restored      `json:"-"` // for NoteRan; nil without a record
}

// doneWords say what was done with an object, in the order of a sentence.
var doneWords = []struct {
	action Action
	word   string
}{
	{ActionMake, "made"}, {ActionRemake, "made anew"}, {ActionKeep, "equal already"}, {ActionFill, "filled"},
	{ActionAdopt, "adopted"}, {ActionReplace, "replaced"}, {ActionLeave, "left alone"}, {ActionRemove, "removed"},
	{ActionConflict, "in conflict"},
}

// Done counts for people what the restore did, or would do, with the objects: "3
// made, 1 equal already", "nothing to make" where that is none. Actions named in but
// are passed over.
func (r *RestoreReport) Done(but ...Action) string {
	var parts []string
	for _, w := range doneWords {
		if n := r.Actions[w.action]; n > 0 && !slices.Contains(but, w.action) {
			parts = append(parts, fmt.Sprintf("%d %s", n, w.word))
		}
	}
	if len(parts) == 0 {
		return "nothing to make"
	}
	return strings.Join(parts, ", ")
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
	copying, err := newCopying(opt.Method)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	p := newPrelude(opt.stateDir(), false)
	r := &restore{opt: opt, prelude: p, copying: copying, begun: make(chan *images.Set, 1)}
	var beside sync.WaitGroup
	beside.Go(func() {
		p.run(ctx)
		r.help()
		if !opt.DryRun {
			p.sweep()
		}
	})
	err = opt.Namespace.Run(func() error { return r.run(ctx) })
	close(r.begun)
	beside.Wait()
	if closeErr := p.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("restore %s into %s: %w", opt.Dir, opt.Namespace, p.alsoLeft(err))
	}
	took := time.Since(began)
	report := r.report()
	report.Duration = took
	report.Warnings = append(p.recovered, report.Warnings...)
	if !opt.DryRun {
		if report.Restored, err = r.restored(); err != nil { // which undoes nothing
			report.Warnings = append(report.Warnings, err.Error())
		}
	}
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
	switch o.Again {
	case "", AgainRefuse, AgainKeep, AgainRollback:
	default:
		return fmt.Errorf("restore: again %q: choose refuse, keep or rollback", o.Again)
	}
	switch o.Existing {
	case "", ExistingRefuse, ExistingAdopt:
	default:
		return fmt.Errorf("restore: existing %q: choose refuse or adopt", o.Existing)
	}
	return nil
}

// stateDir returns how the state directory is opened.
func (o *RestoreOptions) stateDir() func() (*state.Dir, error) {
	switch {
	case o.openState != nil:
		return o.openState
	case o.DryRun:
		return state.Existing
	}
	return state.Default
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
	if n := r.missing(); n > 0 {
		report.Warnings = append(report.Warnings, fmt.Sprintf("%d objects of the image are not there, and are not made: %s", n, report.Recorded))
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

// missing counts the image's objects that are not there and that a later checkpoint
// keeps from being made.
func (r *restore) missing() (n int) {
	if r.past == nil || r.past.rule != older {
		return 0
	}
	for _, plan := range r.plans {
		n += len(plan.Absent())
	}
	return n
}
