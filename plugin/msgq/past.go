package msgq

import (
	"strconv"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	kept "github.com/ipc-cr/ipc-cr/plugin/internal/record"
)

// What the record keeps of a queue. Name is its id and key: with its sequence
// number in it, an id is not given to another queue for a long time.
const (
	headID = iota
	headKey
	headMode
	headUID // as the namespace's own user namespace knows them
	headGID
	headCUID
	headCGID
	headQBytes
	headQNum
	headLen
)

// What a restore leaves in a queue.
const (
	leftSTime = iota // 0: not known
	leftCTime        // 0: not known
	leftLSPID
	leftBytes
	leftLen
)

// Objects implements kind.Image. The lists of all queues share memory: there can
// be very many.
func (img *image) Objects() []kept.Object {
	objects := make([]kept.Object, len(img.records))
	heads := make([]uint32, 0, headLen*len(img.records))
	names := make([]byte, 0, 24)
	for i := range img.records {
		r := &img.records[i]
		heads = append(heads, r.ID, r.Key, r.Mode, r.UID, r.GID, r.CUID, r.CGID, r.QBytes, r.QNum)
		names = r.appendName(names[:0])
		objects[i] = kept.Object{Name: string(names), Sum: r.sum, Head: heads[headLen*i : headLen*(i+1) : headLen*(i+1)]}
	}
	return objects
}

// appendName appends what the record calls the queue.
func (r *record) appendName(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(r.ID), 10)
	return strconv.AppendUint(append(b, " 0x"...), uint64(r.Key), 16)
}

// Absent implements kind.Plan.
func (p *plan) Absent() (names []string) {
	for i := range p.steps {
		if s := &p.steps[i]; s.action == kind.Leave && s.absent {
			names = append(names, string(s.appendName(nil)))
		}
	}
	return names
}

// Objects implements kind.Plan.
func (p *plan) Objects() []kept.Object {
	objects := p.image.Objects()
	lefts := make([]int64, leftLen*len(p.steps))
	for i := range p.steps {
		if s := &p.steps[i]; s.makes() {
			left := lefts[leftLen*i : leftLen*(i+1) : leftLen*(i+1)]
			s.left(left)
			objects[i].Left = left
		}
	}
	return objects
}

func (s *step) left(left []int64) {
	left[leftSTime], left[leftCTime], left[leftBytes] = s.stime, s.ctime, s.bytes
	if s.QNum > 0 {
		left[leftLSPID] = int64(ownPID) // also before it is filled
	}
}

// earlier is a queue as the record tells of it.
type earlier struct {
	images.Queue
	owner, creator kernel.Creator // as the caller's user namespace knows them
	left           []int64
}

// recall reads what object wrote. ok is false for what it did not write, and for
// ids that have no mapping any more.
func recall(o *kept.Object, owner *nsenter.Owner) (e *earlier, ok bool) {
	if o == nil || len(o.Head) != headLen || o.Left != nil && len(o.Left) != leftLen {
		return nil, false
	}
	h := o.Head
	e = &earlier{left: o.Left, Queue: images.Queue{
		ID: h[headID], Key: h[headKey], Mode: h[headMode], UID: h[headUID], GID: h[headGID],
		CUID: h[headCUID], CGID: h[headCGID], QBytes: h[headQBytes], QNum: h[headQNum],
	}}
	var err error
	e.owner, e.creator, err = mapOut(&e.Queue, owner)
	return e, err == nil
}

// is reports whether a live queue has its id and key.
func (e *earlier) is(q *kernel.Queue) bool { return q.ID == int32(e.ID) && q.Key == int32(e.Key) }

// touched tells what has been done with a live queue since a restore left it, ""
// for nothing. Whatever is done leaves a trace in one of these.
func (e *earlier) touched(q *kernel.Queue) string {
	known := func(i int, now int64) bool { return e.left[i] == 0 || e.left[i] == now }
	switch {
	case e.left == nil:
		return "not made by a restore"
	case q.RTime != 0:
		return "received from"
	case q.QNum != uint64(e.QNum), int64(q.CBytes) != e.left[leftBytes], int64(q.LSPID) != e.left[leftLSPID], !known(leftSTime, q.STime):
		return "sent to"
	case !known(leftCTime, q.CTime), q.Mode != e.Mode, q.QBytes != uint64(e.QBytes),
		q.UID != e.owner.UID, q.GID != e.owner.GID:
		return "changed"
	case q.CUID != e.creator.UID, q.CGID != e.creator.GID:
		return "made anew"
	}
	return ""
}

// unfinished reports whether a live queue is what an interrupted restore was making:
// closed to everybody and never used.
func (e *earlier) unfinished(q *kernel.Queue) bool {
	r := record{Queue: e.Queue}
	return e.is(q) && q.Mode == r.inProgressMode() && q.RTime == 0 && q.QNum <= uint64(e.QNum) &&
		(q.LSPID == 0 || e.left != nil && int64(q.LSPID) == e.left[leftLSPID]) &&
		q.CUID == e.creator.UID && q.CGID == e.creator.GID
}
