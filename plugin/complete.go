package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// CompleteOptions says which dump to complete.
type CompleteOptions struct {
	Kinds     []Kind             // that are compared
	Namespace *nsenter.Namespace // that CRIU has dumped, whose users are still frozen
	Dir       string             // images directory
	// Since is a moment before CRIU wrote its first image, by the clock that stamps
	// files: what is older was in the directory before. The zero time: nothing was.
	Since time.Time
	// Lenient makes differences warnings.
	Lenient bool
	// Warnings are the caller's own, of what went before. They go into the JSON file,
	// in front of those of the report, and not into the report.
	Warnings []string

	// Where the users of the objects were stopped before CRIU's dump:

	// BusySince, if not 0, is the second from which on nobody may have used the
	// objects, in Unix time as msgctl(2) stamps them: a use since then shows as a
	// difference, but by processes that Stopped reports. Those have been stopped in
	// that second, or before, and still are.
	BusySince int64
	Stopped   func(pid int) bool // nil: nobody is
}

// CompleteReport is what was found in a dump, and added to it.
type CompleteReport struct {
	Dir       string           `json:"images_dir"`
	Number    uint32           `json:"ns_number"`
	Namespace images.Source    `json:"namespace"`
	Objects   []Kept           `json:"objects"`
	Files     []images.FileSum `json:"files"`
	Warnings  []string         `json:"warnings,omitempty"`
	Duration  time.Duration    `json:"duration_ns"`
}

// ErrDiffers says that the images do not hold what the namespace holds.
var ErrDiffers = errors.New("CRIU's images are not what the namespace holds")

// ErrNotDumped says that the directory has no image of an IPC namespace that CRIU
// has just written.
var ErrNotDumped = errors.New("CRIU has dumped no IPC namespace")

// methodCRIU is the name of CRIU's own copy.
const methodCRIU = "criu"

// Complete makes of CRIU's dump of a namespace what Checkpoint would have made
// of it: the images are parsed and compared with the namespace as it is now, by
// the statistics of the objects, and the JSON file is written beside them. The
// objects are not copied again. What an older dump has left in the directory of
// this namespace number, and CRIU has not overwritten, is removed.
//
// It returns ErrDiffers, and the directory has no JSON file, where image and
// namespace disagree. It needs what Checkpoint needs, and write permission on the
// directory.
func Complete(ctx context.Context, opt CompleteOptions) (*CompleteReport, error) {
	began := time.Now()
	p := newPrelude(state.Existing, true) // CRIU has stopped the container
	c := &completion{opt: opt, prelude: p, report: &CompleteReport{Dir: opt.Dir}}
	go p.run(ctx)
	err := opt.Namespace.Run(func() error { return c.run(ctx) })
	if closeErr := p.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("complete the dump of %s in %s: %w", opt.Namespace, opt.Dir, err)
	}
	c.report.Warnings = append(p.recovered, c.report.Warnings...)
	c.report.Duration = time.Since(began)
	return c.report, nil
}

// completion is a Complete under way.
type completion struct {
	*target
	opt     CompleteOptions
	prelude *prelude
	report  *CompleteReport
	dir     *images.Dir
	set     *images.Set
	details map[string]images.Details
}

func (c *completion) run(ctx context.Context) (err error) {
	if c.dir, err = images.OpenDir(c.opt.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.dir.Close()) }()
	if err := c.dir.Lock(); err != nil {
		return err
	}
	if err := c.dir.Sweep(); err != nil {
		return err
	}
	if c.report.Number, err = fresh(c.dir, c.opt.Since); err != nil {
		return err
	}
	if err := c.forget(); err != nil {
		return err
	}
	if c.set, err = c.dir.Set(int64(c.report.Number)); err != nil {
		return err
	}
	if c.target, err = newTarget(c.opt.Namespace, nil); err != nil {
		return err
	}
	c.prelude.wait()
	if err := c.verify(ctx); err != nil {
		return err
	}
	return c.commit()
}

// fresh returns the number of the namespace of which CRIU has written images
// since that moment. One dump has one IPC namespace at most (criu/namespaces.c).
func fresh(dir *images.Dir, since time.Time) (uint32, error) {
	numbers, err := dir.Numbers()
	if err != nil {
		return 0, err
	}
	var of []uint32
	for _, n := range numbers {
		old, err := writtenBefore(dir, images.FileName(images.VarKind, n), since)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		if err == nil && !old {
			of = append(of, n)
		}
	}
	switch len(of) {
	case 0:
		return 0, ErrNotDumped
	case 1:
		return of[0], nil
	}
	return 0, fmt.Errorf("images of %d namespaces (%v), and not to be seen which are of this dump: use an empty directory", len(of), of)
}

// writtenBefore reports whether a file was last written before a moment.
func writtenBefore(dir *images.Dir, name string, moment time.Time) (bool, error) {
	written, err := dir.Written(name)
	return err == nil && written.Before(moment), err
}

// forget removes what an older dump has left: CRIU truncates the files that it
// writes, and writes none of a kind of which there is no object.
func (c *completion) forget() error {
	if err := c.dir.RemoveManifest(c.report.Number); err != nil {
		return err
	}
	names, err := c.dir.Holds(c.report.Number)
	if err != nil {
		return err
	}
	for _, name := range names {
		old, err := writtenBefore(c.dir, name, c.opt.Since)
		if err != nil {
			return err
		}
		kind, n, image := images.ParseFileName(name)
		if !old || !image {
			continue
		}
		if err := c.dir.RemoveImage(kind, n); err != nil {
			return err
		}
	}
	return nil
}

// verify compares kind by kind.
func (c *completion) verify(ctx context.Context) error {
	c.details = map[string]images.Details{}
	return c.space.Here(func(k kernel.Kernel) error {
		for _, kind := range c.opt.Kinds {
			if err := c.verifyKind(ctx, k, kind); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *completion) verifyKind(ctx context.Context, k kernel.Kernel, of Kind) error {
	live, err := of.Survey(&c.Target, k)
	if err != nil {
		return err
	}
	image, err := of.Load(ctx, c.set, c.Owner)
	if err != nil {
		return err
	}
	defer image.Close()
	if size := image.Size(); size.Objects > 0 {
		c.report.Objects = append(c.report.Objects, Kept{Kind: of.Name(), Size: size})
	}
	verifier, able := image.(kind.Verifier)
	if !able {
		return nil
	}
	found, err := verifier.Verify(&c.Target, k, live)
	if err != nil {
		return err
	}
	if found.Details != nil {
		c.details[of.Name()] = found.Details
	}
	return c.judge(found.Difference, live)
}

// judge makes an error, or a warning, of a difference.
func (c *completion) judge(difference string, live kind.Survey) error {
	if difference == "" && c.opt.BusySince != 0 {
		if busy := live.Busy(c.opt.BusySince, time.Now().Unix(), c.opt.Stopped); busy != "" {
			difference = busy + ": was in use while CRIU copied it, and its users were not stopped"
		}
	}
	switch {
	case difference == "":
		return nil
	case c.opt.Lenient:
		c.report.Warnings = append(c.report.Warnings, ErrDiffers.Error()+": "+difference)
		return nil
	}
	return fmt.Errorf("%w: %s", ErrDiffers, difference)
}

func (c *completion) commit() error {
	uid, gid, err := c.root()
	if err != nil {
		return err
	}
	c.report.Namespace = c.source
	c.report.Warnings = slices.Concat(c.report.Warnings, writers(c.dir, uid))
	if c.report.Files, err = c.set.Sums(); err != nil {
		return err
	}
	manifest := &images.Manifest{
		Format: images.ManifestFormat, Number: c.report.Number,
		Created: time.Now().UTC().Truncate(time.Second), Namespace: c.source, Method: methodCRIU,
		Files: c.report.Files, Warnings: slices.Concat(c.opt.Warnings, c.report.Warnings),
	}
	if manifest.Boottime, err = boottime(); err != nil {
		return err
	}
	stage := c.dir.Stage(c.report.Number, int(uid), int(gid))
	if err = stage.CommitManifest(manifest, c.details); err != nil {
		stage.Discard()
	}
	return err
}

// Count tells how many objects of the kinds are in a namespace. It needs
// CAP_SYS_ADMIN over the namespace, and no permission on any object.
func Count(ns *nsenter.Namespace, kinds []Kind) (total Size, err error) {
	space := linux.NewSpace(ns, nil)
	err = space.Run(func(k kernel.Kernel) error {
		total, err = count(space, k, kinds)
		return err
	})
	return total, err
}

func count(space kernel.Space, k kernel.Kernel, kinds []Kind) (total Size, err error) {
	for _, of := range kinds {
		survey, err := of.Survey(&kind.Target{Space: space}, k)
		if err != nil {
			return total, err
		}
		size := survey.Size()
		total.Objects += size.Objects
		total.Messages += size.Messages
		total.Bytes += size.Bytes
	}
	return total, nil
}
