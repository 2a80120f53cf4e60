package msgq

import (
	"context"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// plan is what a restore does about each queue of an image.
type plan struct {
	image     *image
	steps     []step
	strangers int
	live      int // queues in the namespace
	removed   int // of them, how many go
}

// step is what happens to one queue of the image.
type step struct {
	*record
	action kind.Action
	reason string
	remove []kernel.Queue // what has to go right before
	done   bool           // made by this run
	lspid  int32          // of our own sends, 0 if none
}

// Plan implements kind.Image.
func (img *image) Plan(ctx context.Context, t *kind.Target, k kernel.Kernel, policy kind.Policy) (kind.Plan, error) {
	live, err := stat(t.Space, k)
	if err != nil {
		return nil, err
	}
	p := &plan{image: img, live: len(live), steps: make([]step, len(img.records))}
	c := &comparer{ctx: ctx, k: k, target: t, source: &img.source}
	known := newLookup(live, k)
	ours := 0 // live queues that are equal or leftovers
	for i := range img.records {
		s := &p.steps[i]
		s.record = &img.records[i]
		familiar, err := s.decide(c, known, policy)
		if err != nil {
			return nil, err
		}
		if familiar {
			ours++
		}
		p.removed += len(s.remove)
	}
	p.strangers = len(live) - ours
	return p, p.mayMake(k)
}

// mayMake asks for the privileges that the steps need.
func (p *plan) mayMake(k kernel.Kernel) error {
	seen := map[kernel.Creator]bool{}
	var creators []kernel.Creator
	making := false
	for i := range p.steps {
		s := &p.steps[i]
		if !s.makes() {
			continue
		}
		making = true
		if !seen[s.creator] {
			seen[s.creator] = true
			creators = append(creators, s.creator)
		}
	}
	if !making {
		return nil
	}
	return k.MayRestore(creators)
}

func (s *step) makes() bool {
	return s.action == kind.Make || s.action == kind.Remake || s.action == kind.Replaced
}

// decide chooses the action. familiar tells that the namespace holds the queue
// already, equal or as the leftover of a killed restore.
func (s *step) decide(c *comparer, known *lookup, policy kind.Policy) (familiar bool, err error) {
	obstacles := known.obstacles(s.record)
	if len(obstacles) == 0 {
		s.action = kind.Make
		return false, nil
	}
	same := &obstacles[0]
	if len(obstacles) == 1 && stray(same, s.record) {
		s.action, s.remove = kind.Remake, obstacles
		return true, nil
	}
	if len(obstacles) > 1 || same.ID != int32(s.ID) || same.Key != int32(s.Key) {
		s.collide(obstacles, policy, "its id or key is taken by "+name(same))
		return false, nil
	}
	verdict, err := c.compare(same, s.record)
	if err != nil {
		return false, err
	}
	switch {
	case verdict == equal:
		s.action = kind.Keep
		return true, nil
	case verdict == leftover:
		s.action, s.remove = kind.Remake, obstacles
		return true, nil
	case policy == kind.Adopt && s.adoptable(same):
		s.action, s.reason = kind.Adopted, "differs from the image in "+string(verdict)
		return false, nil
	}
	s.collide(obstacles, policy, "exists and differs in "+string(verdict))
	return false, nil
}

// adoptable: private queues have the ids 0, 1, 2 in every namespace, so that an
// equal id says nothing there.
func (s *step) adoptable(q *kernel.Queue) bool {
	return q.Key != 0 && q.UID == s.owner.UID && q.GID == s.owner.GID && q.Mode == s.Mode
}

func (s *step) collide(obstacles []kernel.Queue, policy kind.Policy, reason string) {
	s.reason = reason
	if policy != kind.Replace {
		s.action = kind.Conflict
		return
	}
	s.action, s.remove = kind.Replaced, obstacles
}

// Steps implements kind.Plan.
func (p *plan) Steps(wanted func(kind.Action) bool) (steps []kind.Step) {
	for i := range p.steps {
		if s := &p.steps[i]; wanted(s.action) {
			steps = append(steps, kind.Step{Object: s.Queue.String(), Action: s.action, Reason: s.reason})
		}
	}
	return steps
}

// Strangers implements kind.Plan.
func (p *plan) Strangers() int { return p.strangers }

// Needs implements kind.Plan. A queue is made with the namespace's msgmnb as its
// qbytes, and must hold its messages as well as its final qbytes: IPC_SET above
// msgmnb needs CAP_SYS_RESOURCE.
func (p *plan) Needs() kind.Needs {
	needs := kind.Needs{}
	made := 0
	for i := range p.steps {
		s := &p.steps[i]
		if !s.makes() {
			continue
		}
		made++
		needs.Merge(kind.Needs{
			msgmax: int64(s.longest),
			msgmnb: max(int64(s.QBytes), s.bytes, int64(s.QNum)),
		})
	}
	if made > 0 {
		needs[msgmni] = int64(p.live - p.removed + made)
	}
	return needs
}

// Begin implements kind.Plan: there is nothing to begin.
func (p *plan) Begin(kernel.Kernel, *kind.Target, kind.Situation) error { return nil }

// lookup finds the queues of the namespace that stand in another one's way.
type lookup struct {
	byKey  map[int32]*kernel.Queue
	bySlot map[int32]*kernel.Queue
	mask   int32
}

func newLookup(live []kernel.Queue, k kernel.Kernel) *lookup {
	l := &lookup{byKey: map[int32]*kernel.Queue{}, bySlot: map[int32]*kernel.Queue{}}
	if len(live) == 0 {
		return l
	}
	l.mask = 1<<k.IndexBits() - 1
	for i := range live {
		l.bySlot[live[i].ID&l.mask] = &live[i]
		if live[i].Key != 0 {
			l.byKey[live[i].Key] = &live[i]
		}
	}
	return l
}

// obstacles returns the queues that have the record's slot or its key. The slot
// is the low part of the id: two ids that share it cannot exist together.
func (l *lookup) obstacles(r *record) []kernel.Queue {
	var found []kernel.Queue
	slot, key := l.bySlot[int32(r.ID)&l.mask], l.byKey[int32(r.Key)]
	if slot != nil {
		found = append(found, *slot)
	}
	if key != nil && r.Key != 0 && key != slot {
		found = append(found, *key)
	}
	return found
}
