package msgq

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// Check implements kind.Plan: every queue is as Make left it.
func (p *plan) Check(t *kind.Target, k kernel.Kernel) error {
	return p.eachMade(t, k, check)
}

func check(k kernel.Kernel, s *step) error {
	q, err := k.Stat(int32(s.ID))
	if err != nil {
		return fmt.Errorf("look at it before it is opened: %w", err)
	}
	if field := s.disturbed(&q); field != "" {
		return fmt.Errorf("somebody else changed its %s while it was being made", field)
	}
	s.stime = q.STime
	return nil
}

// disturbed names the first field that is not as this run left it.
func (s *step) disturbed(q *kernel.Queue) string {
	made := kernel.Creator{UID: q.CUID, GID: q.CGID}
	owner := kernel.Creator{UID: q.UID, GID: q.GID}
	switch {
	case q.Key != int32(s.Key):
		return "key"
	case made != s.creator:
		return "creator"
	case owner != s.creator: // until IPC_SET the creator owns it
		return "owner"
	case q.Mode != s.inProgressMode():
		return "mode"
	case q.QNum != uint64(s.QNum) || q.CBytes != uint64(s.bytes):
		return "messages"
	case q.LSPID != s.lspid:
		return "last sender"
	case q.RTime != 0:
		return "messages (something was received)"
	}
	return ""
}

// Seal implements kind.Plan. One IPC_SET gives a queue its owner, mode and
// qbytes at once: it is closed, and then it is the image's.
func (p *plan) Seal(t *kind.Target, k kernel.Kernel) error {
	if err := p.eachMade(t, k, p.seal); err != nil {
		return err
	}
	for i := range p.gone {
		if err := p.gone[i].leave(k); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) seal(k kernel.Kernel, s *step) error {
	attr := kernel.Attr{UID: s.owner.UID, GID: s.owner.GID, Mode: s.Mode, QBytes: uint64(s.QBytes)}
	if err := k.Set(int32(s.ID), attr); err != nil {
		return fmt.Errorf("set owner, mode and qbytes: %w", err)
	}
	if !p.record {
		return nil
	}
	// It may be in use already, or gone: only the time of this call counts.
	if q, err := k.Stat(int32(s.ID)); err == nil {
		s.ctime = q.CTime
	}
	return nil
}

// Undo implements kind.Plan. A queue that is no longer as this run made it is
// somebody else's and stays.
func (p *plan) Undo(k kernel.Kernel) error {
	var errs []error
	for i := range slices.Backward(p.steps) {
		s := &p.steps[i]
		for _, id := range s.astray {
			if err := remove(k, id); err != nil {
				errs = append(errs, fmt.Errorf("remove queue %d, which came out instead of %s: %w", id, &s.Queue, err))
			}
		}
		if s.done {
			if err := s.undo(k); err != nil {
				errs = append(errs, fmt.Errorf("remove the unfinished %s: %w", &s.Queue, err))
			}
		}
		if err := s.reopen(k); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *step) undo(k kernel.Kernel) error {
	q, err := k.Stat(int32(s.ID))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return nil
	}
	if err != nil {
		return err
	}
	if q.Key != int32(s.Key) || q.Mode != s.inProgressMode() {
		return nil
	}
	s.done = false
	return remove(k, int32(s.ID))
}
