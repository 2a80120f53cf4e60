package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// attempts is how often a namespace that is in use is copied.
const attempts = 5

// snapshot is a consistent copy of a namespace in the making.
type snapshot struct {
	*target
	opt      CheckpointOptions
	dir      *images.Dir
	uid, gid int
	copying  *copying
	locks    *state.Dir // where the right to stop tasks is taken, nil without
	held     *hold
	total    atomic.Int64 // messages to copy
	posix    []string     // warnings of what was there before the copy
	notKnown []string

	// Of the last attempt:
	attempts int
	stage    *images.Stage
	details  map[string]images.Details
	manifest *images.Manifest
	sizes    []Kept
	warnings []string
	when     time.Time
	boottime int64
}

// take copies until a copy is consistent.
func (s *snapshot) take(ctx context.Context) error {
	if err := s.space.Here(s.prepare); err != nil {
		return err
	}
	if !s.opt.Freeze {
		return s.untilQuiet(ctx, unstopped)
	}
	h := holding{exempt: s.opt.Exempt, dir: s.locks, locked: s.opt.Turn, wait: lockWait, limit: s.opt.frozen}
	if s.opt.Urgent {
		h.wait = glance
	}
	held, err := s.freeze(ctx, h)
	if err != nil {
		return err
	}
	s.held = held
	ctx, end := held.bound(ctx, "the copy takes too long for --freeze")
	err = s.untilQuiet(ctx, held.doubt())
	if over := end(); err == nil {
		err = over // they may have run before the copy was complete
	}
	return errors.Join(err, held.release())
}

// prepare looks at how much there is, before any task is stopped by us.
func (s *snapshot) prepare(k kernel.Kernel) error {
	if !s.opt.SkipPOSIX {
		s.posix, s.notKnown = posix(k)
	}
	var least, most time.Duration
	for _, kind := range s.opt.Kinds {
		l, m, err := kind.Walking(k, worthWalking)
		if err != nil {
			return err
		}
		least, most = least+l, most+m
	}
	if s.opt.Freeze && s.copying.open(least, most) {
		var sum walkingSum
		for _, kind := range s.opt.Kinds {
			if err := kind.EachWalking(&s.Target, k, sum.add); err != nil {
				return err
			}
		}
		least = sum.total()
	}
	s.copying.prepare(least)
	return nil
}

// untilQuiet tries until nothing changes during a copy. Where there is doubt that
// nobody runs, the time stamps of the kernel have to prove it, by the rule of the
// quiet second: equal statistics before and after do not, because a message may go
// around and come back.
func (s *snapshot) untilQuiet(ctx context.Context, doubt doubt) error {
	clock, err := newClock()
	if err != nil {
		return err
	}
	defer clock.close()
	for {
		clock.stepped() // forgets what was before
		began, err := clock.second()
		if err != nil {
			return err
		}
		err = s.once(ctx, clock, began, doubt)
		if errors.Is(err, kind.ErrWalk) {
			if err := s.copying.distrust(err); err != nil {
				return err
			}
			continue // no attempt: there is no walk any more
		}
		s.attempts++
		if !errors.Is(err, kind.ErrChanged) {
			return err
		}
		if s.attempts >= attempts {
			return fmt.Errorf("%w, %d times: %s", err, attempts, s.remedy())
		}
		if waited := clock.waitSecond(ctx); waited != nil {
			return fmt.Errorf("%w; attempt %d of %d: %w", err, s.attempts+1, attempts, waited)
		}
	}
}

// remedy is what a person can do about a namespace that is never quiet.
func (s *snapshot) remedy() string {
	switch {
	case s.host:
		return "stop its users (the host's tasks are never frozen)"
	case s.held == nil:
		return "stop its users, or use --freeze"
	}
	if loose := s.held.report().Loose; len(loose) > 0 {
		return "stop its users: they are not among the tasks that were frozen, as is " + loose[0]
	}
	if n := s.held.tasks.Report().Unreadable; n > 0 {
		return fmt.Sprintf("stop its users: they are not among the tasks that were frozen (%d tasks cannot be looked at: needs CAP_SYS_PTRACE over them)", n)
	}
	return "stop its users: they are not among the tasks that were frozen"
}

// once copies the namespace and judges the copy.
func (s *snapshot) once(ctx context.Context, clock *clock, began int64, doubt doubt) error {
	if s.stage != nil {
		s.stage.Discard()
	}
	s.stage = s.dir.Stage(s.opt.Number, s.uid, s.gid)
	s.details, s.sizes, s.warnings = map[string]images.Details{}, nil, nil
	return s.space.Here(func(k kernel.Kernel) error {
		before, err := s.survey(k)
		if err != nil {
			return err
		}
		busy := func() error {
			switch doubt {
			case sure:
				return nil
			case unsure:
				return judge(clock, before, began, s.held.tasks.Holds)
			}
			return judge(clock, before, began, nil)
		}
		err = s.copy(ctx, k, before)
		if back := s.Limits.PutBack(); back != nil {
			return errors.Join(err, back)
		}
		if errors.Is(err, kind.ErrWalk) {
			return cmp.Or(busy(), err) // a queue that is in use is no proof against the walk
		}
		if err != nil {
			return err
		}
		described := inBackground(s.describe)
		if err = s.recheck(k, before); err == nil {
			err = busy()
		}
		return errors.Join(err, described())
	})
}

// inBackground begins something; the function it returns waits for its end.
func inBackground(do func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return func() error { return <-done }
}

// describe writes the JSON file, while the namespace is looked at again. Nothing is
// warned of after it.
func (s *snapshot) describe() error {
	method, _ := s.copying.chosen()
	s.warnings = slices.Concat(s.warnings, s.posix, s.held.warnings(), s.copying.warnings(), writers(s.dir, uint32(s.uid)))
	s.manifest = &images.Manifest{
		Format: images.ManifestFormat, Number: s.opt.Number,
		Created: s.when, Boottime: s.boottime,
		Namespace: s.source, Method: string(method),
		Warnings: slices.Concat(s.opt.Warnings, s.warnings),
	}
	return s.stage.Describe(s.manifest, s.details)
}

func (s *snapshot) recheck(k kernel.Kernel, surveys []kind.Survey) error {
	for _, survey := range surveys {
		if err := survey.Recheck(&s.Target, k); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) survey(k kernel.Kernel) ([]kind.Survey, error) {
	surveys := make([]kind.Survey, len(s.opt.Kinds))
	for i, kind := range s.opt.Kinds {
		var err error
		if surveys[i], err = kind.Survey(&s.Target, k); err != nil {
			return nil, err
		}
	}
	return surveys, nil
}

func (s *snapshot) copy(ctx context.Context, k kernel.Kernel, surveys []kind.Survey) (err error) {
	if s.boottime, err = boottime(); err != nil {
		return err
	}
	if s.warnings, err = others(k); err != nil {
		return err
	}
	s.when = time.Now().UTC().Truncate(time.Second)
	for _, survey := range surveys {
		s.total.Add(survey.Size().Messages)
	}
	for i, survey := range surveys {
		name := s.opt.Kinds[i].Name()
		details, err := survey.Copy(ctx, &s.Target, k, s.stage)
		if err != nil {
			return err
		}
		if details == nil {
			continue
		}
		s.details[name] = details
		s.sizes = append(s.sizes, Kept{Kind: name, Size: survey.Size()})
	}
	return nil
}

// judge tells what speaks against a copy of which nothing has changed that the
// statistics show.
func judge(clock *clock, surveys []kind.Survey, began int64, held func(pid int) bool) error {
	ended, err := clock.second()
	if err != nil {
		return err
	}
	if clock.stepped() || ended < began {
		return fmt.Errorf("the clock was set: the namespace may have %w", kind.ErrChanged)
	}
	for _, survey := range surveys {
		if busy := survey.Busy(began, ended, held); busy != "" {
			return fmt.Errorf("%s: in use in the same second: it may have %w", busy, kind.ErrChanged)
		}
	}
	return nil
}
