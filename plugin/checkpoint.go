package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// CheckpointOptions says what to checkpoint and where to.
type CheckpointOptions struct {
	Kinds     []Kind // in the order in which they are copied
	Namespace *nsenter.Namespace
	Dir       string // images directory, made if its parent exists
	Number    uint32 // of the namespace in the names of the files
	Force     bool   // replace images of that number
	Method    Method // how to copy; the default is MethodAuto
	Freeze    bool   // stop every task of the namespace for the copy
	// Warnings are the caller's own, of what goes before the copy. They go into the
	// JSON file, in front of those of the report, and not into the report.
	Warnings []string
	Progress Progress // nil: nobody is told

	// For callers that run inside CRIU's actions; others leave these at zero.

	// Exempt reports processes that Freeze leaves alone, because they cannot use the
	// objects meanwhile: those that CRIU has stopped, and CRIU. nil: none. It is
	// called from another goroutine, with the pid as /proc shows it.
	Exempt func(pid int) bool
	// Urgent says that tasks are frozen for this checkpoint already, as at CRIU's
	// post-dump: what another process has is not waited for, but an error.
	Urgent bool
	// Turn says that the right to stop the tasks has been taken for this checkpoint,
	// by another process.
	Turn bool
	// SkipPOSIX leaves POSIX message queues uncounted, and the warning of them to the
	// caller (CountAll): tasks may be frozen already, or will be for longer.
	SkipPOSIX bool

	frozen time.Duration // for how long tasks are at most, 0 for frozenLimit
}

// CheckpointReport is what a checkpoint did.
type CheckpointReport struct {
	Dir       string           `json:"images_dir"`
	Number    uint32           `json:"ns_number"`
	Namespace images.Source    `json:"namespace"`
	Host      bool             `json:"host,omitempty"`       // Namespace is the host's
	Method    Method           `json:"method"`               // that was used
	WhyMethod string           `json:"why_method,omitempty"` // why not the other, where there was a choice
	Objects   []Kept           `json:"objects"`
	Files     []images.FileSum `json:"files"`
	Attempts  int              `json:"attempts"`
	Frozen    *Frozen          `json:"frozen,omitempty"`
	Limits    []LimitChange    `json:"limits_raised,omitempty"`
	Warnings  []string         `json:"warnings,omitempty"`
	NotKnown  []string         `json:"not_known,omitempty"` // what could not be looked for, so that Warnings may lack it
	Duration  time.Duration    `json:"duration_ns"`
}

// Checkpoint writes the images of a namespace into a directory. It changes no
// object, and the directory holds afterwards either the complete checkpoint or
// nothing that passes for one; a directory that holds images of the number is
// refused unless Force is set.
//
// The copy is a state that the namespace really had: all tasks are stopped with
// Freeze, else the kernel's time stamps prove that nothing changed meanwhile, and
// a namespace that is never quiet for so long is refused.
//
// It needs CAP_SYS_ADMIN over the namespace to enter it (setns(2)), read
// permission on every queue or CAP_IPC_OWNER, and with Freeze the right to trace
// its tasks (ptrace(2)). A process that lives in the namespace need not enter it.
func Checkpoint(ctx context.Context, opt CheckpointOptions) (*CheckpointReport, error) {
	began := time.Now()
	openState := state.Existing
	if opt.Freeze {
		openState = state.Default
	}
	p := newPrelude(openState, opt.Urgent)
	var report *CheckpointReport
	go p.run(ctx)
	err := opt.Namespace.Run(func() (err error) {
		report, err = checkpoint(ctx, opt, p)
		return err
	})
	if closeErr := p.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", opt.Namespace, err)
	}
	report.Warnings = append(p.recovered, report.Warnings...)
	report.Duration = time.Since(began)
	return report, nil
}

func checkpoint(ctx context.Context, opt CheckpointOptions, p *prelude) (*CheckpointReport, error) {
	dir, err := images.MakeDir(opt.Dir)
	if err != nil {
		return nil, err
	}
	report, err := checkpointInto(ctx, dir, opt, p)
	if err != nil {
		dir.Abandon()
		return nil, errors.Join(err, dir.Close())
	}
	return report, dir.Close()
}

func checkpointInto(ctx context.Context, dir *images.Dir, opt CheckpointOptions, p *prelude) (*CheckpointReport, error) {
	if err := vacant(dir, opt); err != nil {
		return nil, err
	}
	t, err := newTarget(opt.Namespace, nil)
	if err != nil {
		return nil, err
	}
	p.wait()
	if opt.Freeze && t.host {
		return nil, errors.New("the host's IPC namespace is never frozen: checkpoint it without --freeze")
	}
	uid, gid, err := t.root()
	if err != nil {
		return nil, err
	}
	copying, err := newCopying(opt.Method)
	if err != nil {
		return nil, err
	}
	t.Walker = copying.walker
	s := &snapshot{target: t, opt: opt, dir: dir, uid: int(uid), gid: int(gid), copying: copying}
	if opt.Freeze {
		s.locks = p.locks()
	}
	if opt.Urgent {
		t.Limits.Hurry()
	}
	stop := t.watch(opt.Progress, s.total.Load)
	err = s.take(ctx)
	stop()
	err = errors.Join(err, copying.close())
	if s.stage != nil {
		defer s.stage.Discard()
	}
	if err != nil {
		return nil, err
	}
	return s.commit()
}

// vacant locks the directory and refuses one that holds a checkpoint.
func vacant(dir *images.Dir, opt CheckpointOptions) error {
	if err := dir.Lock(); err != nil {
		return err
	}
	if err := dir.Sweep(); err != nil {
		return err
	}
	old, err := dir.Holds(opt.Number)
	if err != nil || len(old) == 0 || opt.Force {
		return err
	}
	return fmt.Errorf("images directory %s: holds images of namespace number %d already (%s): use another directory or --ns-id, or --force to replace them",
		dir.Path(), opt.Number, strings.Join(old, ", "))
}

// commit names the files, and tells what was done.
func (s *snapshot) commit() (*CheckpointReport, error) {
	if err := s.stage.Commit(); err != nil {
		return nil, err
	}
	method, why := s.copying.chosen()
	return &CheckpointReport{
		Dir: s.opt.Dir, Number: s.opt.Number, Namespace: s.source, Host: s.host, Method: method, WhyMethod: why,
		Objects: s.sizes, Files: s.manifest.Files, Attempts: s.attempts,
		Frozen: s.held.report(), Limits: s.Limits.Changes(), Warnings: s.warnings, NotKnown: s.notKnown,
	}, nil
}

// writers warns of an images directory that others than root and the
// namespace's own root can write.
func writers(dir *images.Dir, rootUID uint32) []string {
	by, err := dir.WritableBy(rootUID)
	if err != nil || by == "" {
		return nil
	}
	return []string{fmt.Sprintf("images directory %s can be written by %s: whoever writes images decides what a restore makes", dir.Path(), by)}
}
