package msgq

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// decider chooses what happens to each queue.
type decider struct {
	comparer
	wanted *kind.Wanted
	chosen kind.Selection
	known  *lookup
	going  map[int32]departure // by id, those that nobody has used
	used   map[int32]departure // by id, those that stay because somebody has
}

// departure is a queue of an earlier restore that the image does not have.
type departure struct {
	queue  kernel.Queue
	action kind.Action
	reason string
}

// depart chooses what happens to queues that the image does not have any more.
// What is gone already needs nothing.
func (d *decider) depart() (gone []departure) {
	d.going, d.used = map[int32]departure{}, map[int32]departure{}
	for _, order := range d.wanted.Gone {
		g, there := d.departure(order)
		if !there {
			continue
		}
		gone = append(gone, g)
		if g.action == kind.Remove {
			d.going[g.queue.ID] = g
		} else {
			d.used[g.queue.ID] = g
		}
	}
	return gone
}

func (d *decider) departure(order kind.Order) (g departure, there bool) {
	if begun, ok := recall(order.Begun, d.target.Owner); ok {
		if q := d.known.exact(begun); q != nil && begun.unfinished(q) {
			return departure{*q, kind.Remove, "was left by an interrupted restore"}, true
		}
	}
	was, ok := recall(order.Was, d.target.Owner)
	if !ok || !d.chosen.Has(int32(was.Key), was.owner.UID) {
		return g, false
	}
	q := d.known.exact(was)
	if q == nil {
		return g, false
	}
	g.queue = *q
	g.action, g.reason = d.verdict(was.touched(q), order.Forgive, "is not in "+d.wanted.Now)
	if g.action == kind.Replaced {
		g.action = kind.Remove
	}
	return g, true
}

// verdict decides about an object of the earlier checkpoint that the later one
// has otherwise, or not.
func (d *decider) verdict(touched string, forgive bool, how string) (kind.Action, string) {
	restored := "since it was restored from " + d.wanted.Before
	switch {
	case touched == "":
		return kind.Replaced, how + ", and nobody has used it " + restored
	case forgive:
		return kind.Leave, how + ", but was " + touched + " " + restored + ": left alone"
	}
	return kind.Conflict, how + ", but was " + touched + " " + restored
}

// step carries out an order. familiar are the queues in the namespace that are
// equal, or made by a restore that was killed.
func (d *decider) step(s *step, order kind.Order) (familiar []kernel.Queue, err error) {
	obstacles := d.known.obstacles(s.record)
	s.absent, s.way = len(obstacles) == 0, kind.ByOrder
	if order.Begun != nil {
		if decided, familiar := d.resume(s, order, obstacles); decided {
			return familiar, nil
		}
	}
	switch order.Do {
	case kind.Stay:
		s.action, s.reason = kind.Leave, order.Reason
		if order.Begun != nil {
			return obstacles, nil // the interrupted restore's own
		}
		return nil, nil
	case kind.Update:
		return d.update(s, order, obstacles)
	case kind.Hold:
		return d.hold(s, order, obstacles)
	case kind.Rest:
		d.rest(s, order, obstacles)
		return nil, nil
	}
	if cleared := d.clear(s, order, obstacles); cleared {
		return nil, nil
	}
	return s.decide(&d.comparer, d.known, d.wanted, obstacles)
}

// resume sees to what an interrupted restore left at the queue's place.
func (d *decider) resume(s *step, order kind.Order, obstacles []kernel.Queue) (decided bool, familiar []kernel.Queue) {
	begun, ok := recall(order.Begun, d.target.Owner)
	if !ok {
		return false, nil
	}
	switch {
	case len(obstacles) == 0 && order.Missing:
		s.action, s.reason = kind.Make, "not finished by an interrupted restore"
		return true, nil
	case len(obstacles) == 1 && begun.unfinished(&obstacles[0]):
		s.action, s.reason, s.remove = kind.Remake, "not finished by an interrupted restore", slices.Clone(obstacles)
		return true, obstacles
	}
	return false, nil
}

// update replaces what the last restore left, unless somebody has used it.
func (d *decider) update(s *step, order kind.Order, obstacles []kernel.Queue) (familiar []kernel.Queue, err error) {
	was, ok := recall(order.Was, d.target.Owner)
	touched := "removed"
	if ok && len(obstacles) > 0 && was.is(&obstacles[0]) {
		verdict, err := d.compare(&obstacles[0], s.record)
		if err != nil {
			return nil, err
		}
		if verdict == equal {
			s.action = kind.Keep
			return obstacles, nil
		}
		touched = was.touched(&obstacles[0])
	}
	s.action, s.reason = d.verdict(touched, order.Forgive, "differs in "+d.wanted.Now)
	if s.action == kind.Replaced {
		s.remove = slices.Clone(obstacles)
	}
	return nil, nil
}

// hold wants a queue that is equal to the image's.
func (d *decider) hold(s *step, order kind.Order, obstacles []kernel.Queue) (familiar []kernel.Queue, err error) {
	different := "is not there any more"
	if len(obstacles) > 0 {
		same := &obstacles[0]
		if len(obstacles) == 1 && same.ID == int32(s.ID) && same.Key == int32(s.Key) {
			verdict, err := d.compare(same, s.record)
			if err != nil {
				return nil, err
			}
			if verdict == equal {
				s.action, s.reason = kind.Keep, "unchanged since "+d.wanted.Now
				return obstacles, nil
			}
			different = "differs in " + string(verdict)
		} else {
			different = "gave way to " + name(same)
		}
	}
	s.action = kind.Conflict
	if order.Forgive {
		s.action = kind.Leave
	}
	s.reason = different + " since " + d.wanted.Now + ", " + order.Reason
	return nil, nil
}

// rest wants a queue that was not used since an earlier restore of the image.
func (d *decider) rest(s *step, order kind.Order, obstacles []kernel.Queue) {
	since := " since " + d.wanted.Now + " was restored before"
	s.action, s.reason = kind.Conflict, "was removed"+since
	if order.Absent {
		s.action, s.reason = kind.Leave, "was missing when "+d.wanted.Now+" was restored before"
	}
	if len(obstacles) == 0 {
		return
	}
	same := &obstacles[0]
	if len(obstacles) > 1 || same.ID != int32(s.ID) || same.Key != int32(s.Key) {
		s.action, s.reason = kind.Conflict, "gave way to "+name(same)+since
		return
	}
	was, ok := recall(order.Was, d.target.Owner)
	if ok && was.touched(same) == "" || max(same.STime, same.RTime, same.CTime) < order.Since {
		s.action, s.reason = kind.Leave, "not used"+since
		return
	}
	s.action, s.reason = kind.Conflict, "was used"+since
}

// clear lets a new queue take the place of those that go anyway.
func (d *decider) clear(s *step, order kind.Order, obstacles []kernel.Queue) bool {
	if len(obstacles) == 0 {
		return false
	}
	first, queues := name(&obstacles[0]), slices.Clone(obstacles)
	switch {
	case allIn(d.going, queues):
		s.action, s.remove = kind.Replaced, queues
		s.reason = "takes the place of " + first + ", which " + d.going[queues[0].ID].reason
	case allIn(d.used, queues) && order.Forgive:
		s.action, s.reason = kind.Leave, "its place is kept by "+first+": left out"
	case allIn(d.used, queues):
		s.action, s.reason = kind.Conflict, "its place is kept by "+first+", which "+d.used[queues[0].ID].reason
	default:
		return false
	}
	return true
}

func allIn(some map[int32]departure, queues []kernel.Queue) bool {
	return !slices.ContainsFunc(queues, func(q kernel.Queue) bool {
		_, in := some[q.ID]
		return !in
	})
}

// leave removes a queue that goes, if it still is as it was.
func (g *departure) leave(k kernel.Kernel) error {
	if g.action != kind.Remove {
		return nil
	}
	q, err := k.Stat(g.queue.ID)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return nil
	}
	if err == nil && q != g.queue {
		g.action, g.reason = kind.Leave, "used while it was to be removed: left alone"
		return nil
	}
	if err == nil {
		err = remove(k, g.queue.ID)
	}
	if err != nil {
		return fmt.Errorf("remove %s, which %s: %w", name(&g.queue), g.reason, err)
	}
	return nil
}
