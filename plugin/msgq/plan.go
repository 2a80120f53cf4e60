package msgq

import (
	"context"
	"slices"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// plan is what a restore does about each queue of an image.
type plan struct {
	image     *image
	steps     []step
	gone      []departure
	strangers int
	live      int  // queues in the namespace
	removed   int  // of them, how many go before others are made
	record    bool // what is left in the queues will be asked for
}

// step is what happens to one queue of the image.
type step struct {
	*record
	action kind.Action
	reason string
	way    kind.Way
	remove []kernel.Queue // what has to go right before
	closed []kernel.Queue // of these, what is closed to others meanwhile
	absent bool           // nothing is at its place
	done   bool           // made by this run
	lspid  int32          // of our own sends, 0 if none
	stime  int64          // of them
	ctime  int64          // of our IPC_SET
	astray []int32        // queues with other ids that came out and could not be removed
}

// Plan implements kind.Image.
func (img *image) Plan(ctx context.Context, t *kind.Target, k kernel.Kernel, w kind.Wanted) (kind.Plan, error) {
	if w.Anew || img.seen == nil {
		img.seen = map[int32]sighting{}
	}
	live, err := stat(t.Space, k)
	if err != nil {
		return nil, err
	}
	if err := img.oneSlotEach(k); err != nil {
		return nil, err
	}
	p := &plan{image: img, live: len(live), steps: make([]step, len(img.records)), record: w.Record}
	d := &decider{
		comparer: comparer{ctx: ctx, k: k, target: t, source: &img.source, second: w.Second, seen: img.seen},
		wanted:   &w,
		chosen:   img.chosen,
		known:    newLookup(live, img.records, k),
	}
	defer d.comparer.end()
	p.gone = d.depart()
	ours, gone := map[int32]bool{}, map[int32]bool{}
	for i := range img.records {
		s := &p.steps[i]
		s.record = &img.records[i]
		familiar, err := d.step(s, w.Order(i))
		if err != nil {
			return nil, err
		}
		for _, q := range familiar {
			ours[q.ID] = true
		}
		s.takeAway(gone)
	}
	p.gone = slices.DeleteFunc(p.gone, func(g departure) bool { return g.action == kind.Remove && gone[g.queue.ID] })
	p.removed, p.strangers = len(gone), len(live)-len(ours)
	return p, nil
}

// fewestIndexBits is IPCMNI_SHIFT of ipc/util.h.
const fewestIndexBits = 15

// oneSlotEach refuses queues that this kernel cannot hold together: the slot is
// the low part of the id.
func (img *image) oneSlotEach(k kernel.Kernel) error {
	if img.highest>>fewestIndexBits == 0 {
		return nil // they are their own indexes
	}
	mask := uint32(1)<<k.IndexBits() - 1
	slots := make(map[uint32]*record, len(img.records))
	for i := range img.records {
		r := &img.records[i]
		if first := slots[r.ID&mask]; first != nil {
			return img.fault(r, "%s and %s have the same index %d: this kernel cannot hold both", &r.Queue, &first.Queue, r.ID&mask)
		}
		slots[r.ID&mask] = r
	}
	return nil
}

// takeAway leaves the removal of what stands in several queues' way to the first
// of them: later the id may be that of a queue this run has made.
func (s *step) takeAway(gone map[int32]bool) {
	s.remove = slices.DeleteFunc(s.remove, func(q kernel.Queue) bool { return gone[q.ID] })
	for _, q := range s.remove {
		gone[q.ID] = true
	}
}

// May implements kind.Plan.
func (p *plan) May(k kernel.Kernel, _ kind.Situation) error {
	for i := range p.gone {
		if g := &p.gone[i]; g.action == kind.Remove {
			if err := k.MayRemove(&g.queue); err != nil {
				return err
			}
		}
	}
	creators := newCreators()
	making := false
	for i := range p.steps {
		s := &p.steps[i]
		for j := range s.remove {
			if err := k.MayRemove(&s.remove[j]); err != nil {
				return err
			}
		}
		if s.makes() {
			making = true
			creators.add(s.creator)
		}
		for j := range s.doomed() { // to be made again should a later step fail
			creators.add(kernel.Creator{UID: s.remove[j].CUID, GID: s.remove[j].CGID})
		}
	}
	if !making {
		return nil
	}
	if err := k.MayRestore(creators.all); err != nil {
		return err
	}
	if p.natural() {
		return nil // in a fresh namespace the file would be looked up for nothing
	}
	return k.MaySetNextID()
}

// natural reports whether all queues have the ids that an empty namespace gives
// them by itself, if it always was empty: nothing is lost if it was not, and they
// cannot be made.
func (p *plan) natural() bool {
	n := natural{empty: p.live == 0}
	for i := range p.steps {
		if !n.expects(&p.steps[i]) {
			return false
		}
		n.got(int32(p.steps[i].ID), int32(p.steps[i].ID))
	}
	return true
}

// creators is a set: mostly there is one for all.
type creators struct {
	all  []kernel.Creator
	seen map[kernel.Creator]bool
}

func newCreators() *creators { return &creators{seen: map[kernel.Creator]bool{}} }

func (c *creators) add(creator kernel.Creator) {
	if len(c.all) > 0 && creator == c.all[len(c.all)-1] || c.seen[creator] {
		return
	}
	c.seen[creator] = true
	c.all = append(c.all, creator)
}

func (s *step) makes() bool {
	return s.action == kind.Make || s.action == kind.Remake || s.action == kind.Replaced || s.action == kind.Filled
}

// doomed returns the queues that are removed and are nowhere else. What a killed
// restore left is in the image.
func (s *step) doomed() []kernel.Queue {
	if s.action == kind.Replaced || s.action == kind.Filled {
		return s.remove
	}
	return nil
}

// decide chooses the action by the policy. familiar are the queues in the
// namespace that are equal or what a killed restore left.
func (s *step) decide(c *comparer, known *lookup, w *kind.Wanted, obstacles []kernel.Queue) (familiar []kernel.Queue, err error) {
	if len(obstacles) == 0 {
		s.action = kind.Make
		return nil, nil
	}
	if known.allStrays(obstacles) {
		s.action, s.remove = kind.Remake, slices.Clone(obstacles)
		return obstacles, nil
	}
	same := &obstacles[0]
	if len(obstacles) > 1 || same.ID != int32(s.ID) || same.Key != int32(s.Key) {
		s.collide(obstacles, w.Policy, "its id or key is taken by "+name(same), kind.OnlyReplace)
		return nil, nil
	}
	if w.Missing {
		s.action, s.reason = kind.Leave, "is there"
		return nil, nil
	}
	verdict, err := c.compare(same, s.record)
	if err != nil {
		return nil, err
	}
	switch {
	case verdict == equal:
		s.action = kind.Keep
		return obstacles, nil
	case verdict == leftover:
		s.action, s.remove = kind.Remake, slices.Clone(obstacles)
		return obstacles, nil
	case w.Fill && s.adoptable(same) && c.unused(same, s.record):
		s.action, s.reason, s.remove = kind.Filled, "was made already, and nobody has used it", slices.Clone(obstacles)
		return nil, nil
	case w.Policy == kind.Adopt && s.adoptable(same):
		s.action, s.reason = kind.Adopted, "differs from the image in "+string(verdict)
		return nil, nil
	}
	way := kind.OnlyReplace
	if s.adoptable(same) {
		way = kind.ByAdopt
	}
	s.collide(obstacles, w.Policy, "exists and differs in "+string(verdict), way)
	return nil, nil
}

// unused reports whether a queue is as it was made: nothing was ever sent to it or
// received from it, and its qbytes are those of a new one, or already the image's.
func (c *comparer) unused(q *kernel.Queue, r *record) bool {
	if q.QNum > 0 || q.STime != 0 || q.RTime != 0 || q.LSPID != 0 || q.LRPID != 0 {
		return false
	}
	if q.QBytes == uint64(r.QBytes) {
		return true
	}
	fresh, err := c.k.Sysctl(msgmnb)
	return err == nil && len(fresh) == 1 && int64(q.QBytes) == fresh[0]
}

// adoptable: private queues have the ids 0, 1, 2 in every namespace, so that an
// equal id says nothing there.
func (s *step) adoptable(q *kernel.Queue) bool {
	return q.Key != 0 && q.UID == s.owner.UID && q.GID == s.owner.GID && q.Mode == s.Mode
}

func (s *step) collide(obstacles []kernel.Queue, policy kind.Policy, reason string, way kind.Way) {
	s.reason, s.way = reason, way
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
			steps = append(steps, kind.Step{Object: s.Queue.String(), Action: s.action, Reason: s.reason, Way: s.way})
		}
	}
	for i := range p.image.others {
		if wanted(kind.Leave) {
			steps = append(steps, kind.Step{Object: p.image.others[i].String(), Action: kind.Leave, Reason: kind.NotSelected})
		}
	}
	for i := range p.gone {
		if g := &p.gone[i]; wanted(g.action) {
			steps = append(steps, kind.Step{Object: name(&g.queue), Action: g.action, Reason: g.reason, Way: kind.ByOrder})
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
	var needs kind.Needs
	made := int64(0)
	for i := range p.steps {
		s := &p.steps[i]
		if !s.makes() {
			continue
		}
		if needs == nil {
			needs = kind.Needs{}
		}
		made++
		needs.Merge(s.needs())
		for _, q := range s.doomed() {
			needs.Merge(kind.Needs{msgmnb: max(int64(q.QBytes), int64(q.CBytes), int64(q.QNum))})
		}
	}
	if made > 0 {
		needs[msgmni] = int64(p.live-p.removed) + made
	}
	return needs
}

// Needs implements kind.Image.
func (img *image) Needs() kind.Needs {
	needs := kind.Needs{}
	for i := range img.records {
		needs.Merge(img.records[i].needs())
	}
	return needs
}

func (r *record) needs() kind.Needs {
	return kind.Needs{msgmax: int64(r.longest), msgmnb: max(int64(r.QBytes), r.bytes, int64(r.QNum))}
}

// Begin implements kind.Plan: there is nothing to begin.
func (p *plan) Begin(kernel.Kernel, *kind.Target, kind.Situation) error { return nil }

// lookup finds the queues of the namespace that stand in another one's way.
type lookup struct {
	byKey  map[int32]*kernel.Queue
	bySlot map[int32]*kernel.Queue
	strays map[int32]bool // by id
	mask   int32
}

func newLookup(live []kernel.Queue, records []record, k kernel.Kernel) *lookup {
	l := &lookup{byKey: map[int32]*kernel.Queue{}, bySlot: map[int32]*kernel.Queue{}, strays: map[int32]bool{}}
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
	for i := range records {
		if q := l.byKey[int32(records[i].Key)]; q != nil && stray(q, &records[i]) {
			l.strays[q.ID] = true
		}
	}
	return l
}

// exact returns the live queue with an earlier one's id and key, nil if there is
// none.
func (l *lookup) exact(e *earlier) *kernel.Queue {
	if q := l.bySlot[int32(e.ID)&l.mask]; q != nil && e.is(q) {
		return q
	}
	return nil
}

// allStrays: a stray may stand in the slot of another queue of the image.
func (l *lookup) allStrays(queues []kernel.Queue) bool {
	return !slices.ContainsFunc(queues, func(q kernel.Queue) bool { return !l.strays[q.ID] })
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
