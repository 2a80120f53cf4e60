package freeze

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// How long settle sleeps between two looks, and after which time it asks why a
// task has not stopped yet, in ns.
const (
	shortNap   = int64(20 * time.Microsecond)
	longNap    = int64(time.Millisecond)
	firstDoubt = time.Millisecond
	maxDoubt   = 50 * time.Millisecond
)

// settle waits until every member stands still and reports whether anything
// changed against the last time.
func (h *holder) settle(ctx context.Context) (moved bool, err error) {
	waiting := h.doubtAll()
	began, doubt := time.Now(), firstDoubt
	for ns := shortNap; ; ns = min(2*ns, longNap) {
		if err := h.seizeOn(); err != nil {
			return moved, err
		}
		waiting = h.lookAt(waiting, &moved)
		if len(waiting) == 0 && h.tracers.idle() {
			return moved, nil
		}
		if ctx.Err() != nil {
			return moved, h.tooLate(ctx, waiting)
		}
		if time.Since(began) >= doubt {
			h.buryDead() // one that had stopped may be what a thread in execve waits for
			if err := h.explainAll(waiting); err != nil {
				return moved, err
			}
			if h.allStill(waiting) {
				return moved, nil
			}
			began, doubt = time.Now(), min(2*doubt, maxDoubt)
		}
		runtime.Gosched() // the tracers may have no other processor
		nap(ns)
	}
}

// tooLate names a task that had not stopped when ctx ended.
func (h *holder) tooLate(ctx context.Context, waiting []*member) error {
	err := context.Cause(ctx)
	for _, m := range waiting {
		if h.knows(m) && !m.still() {
			t := h.proc.task(m.pid, m.tid, "")
			return fmt.Errorf("task %q (pid %d, tid %d) had not stopped: %w", t.Name, t.PID, t.TID, err)
		}
	}
	return err
}

// seizeOn takes in what the tracers have done, and has them go on.
func (h *holder) seizeOn() error {
	err := h.tracers.finish(h.taken)
	h.tracers.begin()
	return err
}

// doubtAll returns all members; what was true of those that stand still for
// another reason than ours has to be found true again.
func (h *holder) doubtAll() []*member {
	h.fresh = h.fresh[:0]
	all := make([]*member, 0, len(h.members))
	for _, m := range h.members {
		if m.why != "" {
			m.why, m.since = "", time.Now()
		}
		all = append(all, m)
	}
	return all
}

func (h *holder) allStill(members []*member) bool {
	return len(h.fresh) == 0 && h.tracers.idle() && !slices.ContainsFunc(members, func(m *member) bool {
		return h.knows(m) && !m.still()
	})
}

// lookAt returns those of members that have not stopped or could not be looked at,
// and the children just born to them.
func (h *holder) lookAt(members []*member, moved *bool) []*member {
	waiting := members[:0]
	for _, m := range members {
		seen := m.held()
		if h.knows(m) && seen && h.look(m) {
			*moved = true
		}
		if h.knows(m) && (!m.stopped && !m.ended || m.seized && !seen) {
			waiting = append(waiting, m)
		}
	}
	if len(h.fresh) > 0 {
		*moved = true
		waiting = append(waiting, h.fresh...)
		h.fresh = h.fresh[:0]
	}
	return waiting
}
