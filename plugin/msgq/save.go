package msgq

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// Removes implements kind.Plan.
func (p *plan) Removes() (size kind.Size) {
	for i := range p.steps {
		for _, q := range p.steps[i].doomed() {
			size.Objects++
			size.Messages += int64(q.QNum)
			size.Bytes += int64(q.CBytes)
		}
	}
	return size
}

// Save implements kind.Plan.
func (p *plan) Save(ctx context.Context, t *kind.Target, k kernel.Kernel, stage *images.Stage) (images.Details, error) {
	doomed := p.doomed()
	if len(doomed) == 0 {
		return nil, nil
	}
	file, err := stage.Create(images.MsgKind)
	if err != nil {
		return nil, err
	}
	if err := images.WriteHeader(file, images.MsgKind); err != nil {
		return nil, err
	}
	quiet := *t
	quiet.Done = nil // what is counted is what is restored
	j := newJob(ctx, &quiet, tableOf(k, doomed), file)
	j.slots.keep = func(q *kernel.Queue) bool { return isIn(doomed, q) }
	if err := j.run(k); err != nil {
		return nil, err
	}
	if copied := len(j.slots.queues()); copied != len(doomed) {
		return nil, fmt.Errorf("%d of %d queues that are to be replaced: %w", len(doomed)-copied, len(doomed), kind.ErrChanged)
	}
	return j.out.details(), nil
}

// doomed returns the queues that the plan removes and that are nowhere else, in
// the order of their ids.
func (p *plan) doomed() (all []kernel.Queue) {
	for i := range p.steps {
		all = append(all, p.steps[i].doomed()...)
	}
	slices.SortFunc(all, byID)
	return all
}

func byID(a, b kernel.Queue) int { return int(a.ID - b.ID) }

// isIn reports whether a queue is among sorted ones, and as it was.
func isIn(sorted []kernel.Queue, q *kernel.Queue) bool {
	i, found := slices.BinarySearchFunc(sorted, *q, byID)
	return found && sorted[i] == *q
}

// errUsed says that a queue is not as it was when it was saved.
var errUsed = errors.New("it was used while it was to be replaced")

// clear removes a queue that stands in a step's way. One that is nowhere else must
// be as it was saved. Where its users may run it is closed first, to all but those
// with CAP_IPC_OWNER: then nobody sends to it between the look and the removal.
func (c *creation) clear(s *step, q *kernel.Queue) error {
	if len(s.doomed()) == 0 {
		return remove(c.k, q.ID)
	}
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	saved := *q
	closed := !c.target.Frozen && c.close(q) // this one: a step can have several in its way
	if closed {
		s.closed = append(s.closed, *q)
		saved.Mode = modeInProgress
	}
	now, err := c.k.Stat(q.ID)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return errUsed
	}
	if err != nil {
		return err
	}
	if closed { // which has stamped it
		saved.CTime = now.CTime
	}
	if now != saved {
		return errUsed
	}
	return remove(c.k, q.ID)
}

// close reports whether it could. The kernel refuses qbytes above msgmnb, though
// they stay what they are.
func (c *creation) close(q *kernel.Queue) bool {
	return c.k.Set(q.ID, kernel.Attr{UID: q.UID, GID: q.GID, Mode: modeInProgress, QBytes: q.QBytes}) == nil
}

// reopen gives those that were closed, and not removed, their mode back.
func (s *step) reopen(k kernel.Kernel) error {
	var errs []error
	for i := range s.closed {
		q := &s.closed[i]
		now, err := k.Stat(q.ID)
		if err != nil || now.Key != q.Key || now.Mode != modeInProgress || now.CUID != q.CUID || now.CGID != q.CGID {
			continue // removed, or another one
		}
		if err := k.Set(q.ID, kernel.Attr{UID: q.UID, GID: q.GID, Mode: q.Mode, QBytes: q.QBytes}); err != nil {
			errs = append(errs, fmt.Errorf("give %s its mode %04o back: %w", name(q), q.Mode, err))
		}
	}
	s.closed = nil
	return errors.Join(errs...)
}
