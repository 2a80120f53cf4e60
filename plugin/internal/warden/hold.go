package warden

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/restoring"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// maxLoose bounds how many loose tasks a report lists.
const maxLoose = 300

// hold is tasks that are frozen, and the turn of their namespace.
type hold struct {
	ns    *nsenter.Namespace // open: its inode number is not another's meanwhile
	turn  *turn
	lock  *freeze.Lock
	init  int
	limit time.Duration
	only  bool // the turn, without tasks
	held  Held

	began   time.Time
	release func() (time.Duration, error) // once; how long they stood
	timer   *time.Timer                   // nil without a limit
}

// startHold stops the tasks of the namespace that was passed.
func (p *post) startHold(ctx context.Context, r request, passed *os.File) (Held, error) {
	if passed == nil {
		return Held{}, errors.New("without a namespace")
	}
	ns, err := nsenter.OpenPath("/proc/self/fd/" + strconv.Itoa(int(passed.Fd())))
	if err != nil {
		return Held{}, err
	}
	if p.hold != nil {
		defer ns.Close()
		return p.hold.again(ns, r)
	}
	h := &hold{ns: ns, init: r.Init, limit: r.Limit, only: r.TurnOnly}
	if err := h.begin(ctx, p.dir, p.note, r.Wait); err != nil {
		return Held{}, errors.Join(err, h.lock.Release(), h.turn.release(), ns.Close())
	}
	p.hold = h
	return h.held, nil
}

// again answers a second request for the same.
func (h *hold) again(ns *nsenter.Namespace, r request) (Held, error) {
	same, err := h.ns.Same(ns)
	if err != nil {
		return Held{}, err
	}
	if !same || h.init != r.Init || h.limit != r.Limit || h.only != r.TurnOnly {
		return Held{}, fmt.Errorf("those of %s are held for this CRIU already", h.ns)
	}
	return h.held, nil
}

func (h *hold) begin(ctx context.Context, dir *state.Dir, n note, wait time.Duration) error {
	if h.ns.IsHost() {
		return freeze.ErrHost
	}
	identity, err := h.ns.Identity()
	if err != nil {
		return err
	}
	mine, err := newClaim(n.CRIU, n.Warden)
	if err != nil {
		return err
	}
	if h.turn, err = takeTurn(ctx, dir, namespaceTurn(identity), h.ns.String(), mine, wait); err != nil {
		return err
	}
	if h.lock, err = freeze.TakeLock(ctx, dir, h.ns, wait); err != nil {
		return err
	}
	if h.only {
		h.release = func() (time.Duration, error) { return 0, nil }
		return nil
	}
	return h.stop(ctx, dir, n.CRIU.PID)
}

// stop counts the limit from before the first task is stopped.
func (h *hold) stop(ctx context.Context, dir *state.Dir, criu int) error {
	h.began = time.Now()
	if h.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, h.limit, fmt.Errorf("%w (%s)", ErrLimit, h.limit))
		defer cancel()
	}
	who := &family{criu: criu, init: h.init, making: restoring.In(dir)}
	stopped, err := freeze.All(ctx, h.ns.Inode(), freeze.Options{Exempt: who.exempt})
	if err != nil {
		return err
	}
	h.release = onceRelease(h.began, stopped)
	h.held = heldOf(h.ns.Inode(), stopped.Report())
	h.held.Unseen = h.held.Unseen || who.met // its tasks may come to run
	if ctx.Err() != nil {                    // nobody is there to let them go
		_, err := h.release()
		return errors.Join(context.Cause(ctx), err)
	}
	if h.limit > 0 {
		h.timer = time.AfterFunc(h.limit-time.Since(h.began), func() { _, _ = h.release() })
	}
	return nil
}

func onceRelease(began time.Time, stopped *freeze.Stopped) func() (time.Duration, error) {
	return sync.OnceValues(func() (time.Duration, error) {
		err := stopped.Release()
		return time.Since(began), err
	})
}

func heldOf(inode uint64, r freeze.Report) Held {
	h := Held{Inode: inode, Tasks: r.Tasks, Unreadable: r.Unreadable, Unseen: r.Unseen}
	if r.Seized && r.Unwatched != nil {
		h.Unwatched = r.Unwatched.Error()
	}
	for _, task := range r.Loose {
		switch task.Why {
		case freeze.WhyExempt, freeze.WhyAncestor, freeze.WhySelf:
			h.Exempt++
			continue
		}
		h.LooseTotal++
		if len(h.Loose) < maxLoose {
			h.Loose = append(h.Loose, task)
		}
	}
	return h
}

// let ends the hold. The order matters: the turn is the next one's only when the
// tasks run.
func (p *post) let() (Stood, error) {
	h := p.hold
	if h == nil {
		return Stood{}, ErrNotHeld
	}
	over := h.timer != nil && !h.timer.Stop()
	stood, err := h.release()
	p.hold = nil
	if over {
		err = errors.Join(fmt.Errorf("%w (%s)", ErrLimit, h.limit), err)
	}
	return Stood{Held: h.held, For: stood}, errors.Join(err, h.lock.Release(), h.turn.release(), h.ns.Close())
}

// drop lets the tasks go when nobody asks for how long they stood. A nil hold is
// none.
func (h *hold) drop() error {
	if h == nil {
		return nil
	}
	if h.timer != nil {
		h.timer.Stop()
	}
	_, err := h.release()
	return errors.Join(err, h.lock.Release(), h.turn.release(), h.ns.Close())
}
