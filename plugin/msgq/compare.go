package msgq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// While a queue is being made it has a mode that lets nobody without
// CAP_IPC_OWNER send or receive, and that no program gives a queue: the kernel
// ignores execute bits. A program may well make queues of mode 0: msgget with
// IPC_CREAT and no mode does.
const (
	modeInProgress    = 0o111
	modeInProgressToo = 0o011 // should the queue's own be modeInProgress
)

func (r *record) inProgressMode() uint32 {
	if r.Mode == modeInProgress {
		return modeInProgressToo
	}
	return modeInProgress
}

// verdict is what comparing a live queue with a record gives: equal, leftover,
// or what is different.
type verdict string

const (
	equal    verdict = "equal"
	leftover verdict = "leftover"
)

// comparer compares live queues with the image.
type comparer struct {
	ctx    context.Context
	k      kernel.Kernel
	target *kind.Target
	source *source
	buf    []byte
	sample sample
	walk   kernel.Walk // nil until it is needed

	second int64 // from before the queues were looked at
	seen   map[int32]sighting
}

// sighting is a live queue that was compared, and what came out. To compare it
// again, with all of its users stopped, is spared if nobody has used it since.
type sighting struct {
	kernel.Queue
	second  int64
	verdict verdict
}

// holds reports whether a queue is what it was: the kernel's time stamps have a
// resolution of a second, so that they have to be from before it.
func (s *sighting) holds(q *kernel.Queue) bool {
	return *q == s.Queue && max(q.STime, q.RTime, q.CTime) < s.second
}

// end gives back what the comparisons needed.
func (c *comparer) end() {
	if c.walk != nil {
		c.walk.Release()
		c.walk = nil
	}
}

// compare reports whether a live queue with the record's id and key is equal to
// it, or what a killed restore left of it: closed to everybody, never received
// from, and filled with what the image begins with. There is nothing to lose in
// that.
func (c *comparer) compare(q *kernel.Queue, r *record) (verdict, error) {
	if before, ok := c.seen[q.ID]; ok && before.holds(q) {
		return before.verdict, nil
	}
	v, err := c.look(q, r)
	if err == nil && c.seen != nil {
		c.seen[q.ID] = sighting{*q, c.second, v}
	}
	return v, err
}

func (c *comparer) look(q *kernel.Queue, r *record) (verdict, error) {
	if q.Mode == r.inProgressMode() && q.RTime == 0 && q.QNum <= uint64(r.QNum) &&
		q.CUID == r.creator.UID && q.CGID == r.creator.GID {
		same, err := c.content(q, r)
		if same {
			return leftover, err
		}
		return "mode and messages", err
	}
	if field := difference(q, r); field != "" {
		return verdict(field), nil
	}
	same, err := c.content(q, r)
	if same {
		return equal, err
	}
	return "messages", err
}

// stray reports whether a queue with the record's key and another id is one that a
// restore was killed over the moment it came out (see natural): closed, never
// used, and empty.
func stray(q *kernel.Queue, r *record) bool {
	return r.Key != 0 && q.Key == int32(r.Key) && q.ID != int32(r.ID) && q.Mode == r.inProgressMode() &&
		q.QNum == 0 && q.LSPID == 0 && q.RTime == 0 && q.CUID == r.creator.UID && q.CGID == r.creator.GID
}

// difference names the first field in which the queue is not the record's.
func difference(q *kernel.Queue, r *record) string {
	switch {
	case q.Mode != r.Mode:
		return "mode"
	case q.UID != r.owner.UID || q.GID != r.owner.GID:
		return "owner"
	case q.CUID != r.creator.UID || q.CGID != r.creator.GID:
		return "creator"
	case q.QBytes != uint64(r.QBytes):
		return "qbytes"
	case q.QNum != uint64(r.QNum):
		return "number of messages"
	}
	return ""
}

// content reports whether the messages that are in the queue are the first of the
// record's.
func (c *comparer) content(q *kernel.Queue, r *record) (bool, error) {
	if walk := c.walkFor(q); walk != nil {
		same, err := c.each(r, q, &walked{comparer: c, queue: q, walk: walk})
		var wrong walkError
		if !errors.As(err, &wrong) {
			return same, err
		}
	}
	return c.each(r, q, &copied{comparer: c, queue: q})
}

// walkFor returns what walks along a queue, nil where MSG_COPY is to do it.
func (c *comparer) walkFor(q *kernel.Queue) kernel.Walk {
	if c.target.Walker == nil || q.QNum == 0 {
		return nil
	}
	walker := c.target.Walker(walking(q.QNum, 1))
	if walker != nil && c.walk == nil {
		c.walk = walker.Walk()
	}
	if walker == nil {
		return nil
	}
	return c.walk
}

// reader gives the messages of a live queue, in their order.
type reader interface {
	begin() error
	// next reports whether the next message is this one.
	next(index int, want *images.Payload) (bool, error)
	end() error
	count() int
}

// each compares the messages of a queue with the record's, until two differ.
func (c *comparer) each(r *record, q *kernel.Queue, live reader) (bool, error) {
	cursor := cursor{source: c.source}
	defer cursor.rest()
	messages, err := cursor.at(r, r.end())
	if err != nil {
		return false, err
	}
	if err := live.begin(); err != nil {
		return false, err
	}
	for index := range live.count() {
		if index%pollEvery == 0 && context.Cause(c.ctx) != nil {
			return false, fmt.Errorf("compare %s with the image: message %d of %d: %w", name(q), index, q.QNum, context.Cause(c.ctx))
		}
		want, err := messages.Message()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		same, err := live.next(index, &want)
		if !same || err != nil {
			return false, err
		}
	}
	return true, live.end()
}

// room returns a buffer for a message of that size.
func (c *comparer) room(size int) []byte {
	if need := kernel.HeaderLen + size; cap(c.buf) < need {
		c.buf = make([]byte, need)
	}
	return c.buf[:kernel.HeaderLen+size]
}

// isMessage reports whether a buffer of msgrcv(2) holds a message of the image.
func isMessage(buf []byte, want *images.Payload) bool {
	return len(buf) == kernel.HeaderLen+int(want.Size) &&
		int64(binary.NativeEndian.Uint64(buf)) == want.Type && bytes.Equal(buf[kernel.HeaderLen:], want.Bytes())
}

// walked reads a queue by one walk. Some of its messages are compared with what
// MSG_COPY gives.
type walked struct {
	*comparer
	queue *kernel.Queue
	walk  kernel.Walk
}

func (w *walked) count() int { return int(w.queue.QNum) }

func (w *walked) begin() error {
	w.sample.begin(w.queue)
	if err := w.walk.Begin(w.queue); err != nil {
		return walkError{err}
	}
	return nil
}

func (w *walked) next(index int, want *images.Payload) (bool, error) {
	size, err := w.walk.Next()
	if err != nil {
		return false, walkError{err}
	}
	buf := w.room(size)
	if err := w.walk.Read(buf); err != nil {
		return false, walkError{err}
	}
	if err := w.sample.check(w.k, buf, index); err != nil {
		return false, walkError{err}
	}
	if isMessage(buf, want) {
		return true, nil
	}
	// A walk alone proves nothing against a queue.
	same, err := (&copied{comparer: w.comparer, queue: w.queue}).next(index, want)
	if same {
		return false, walkError{errSample}
	}
	return false, err
}

func (w *walked) end() error {
	if err := w.walk.End(); err != nil {
		return walkError{err}
	}
	return nil
}

// copied reads a queue with MSG_COPY.
type copied struct {
	*comparer
	queue *kernel.Queue
}

func (c *copied) count() int   { return int(c.queue.QNum) }
func (c *copied) begin() error { return nil }
func (c *copied) end() error   { return nil }

func (c *copied) next(index int, want *images.Payload) (bool, error) {
	got, q := c.room(int(want.Size)), c.queue
	n, err := c.k.Copy(q.ID, got, index)
	if errors.Is(err, unix.EINVAL) {
		// As in a checkpoint: a message may be longer than msgmax is now.
		if err = c.target.Limits.Raise(c.k, msgmax, int64(q.CBytes)); err == nil {
			n, err = c.k.Copy(q.ID, got, index)
		}
	}
	switch {
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOMSG), errors.Is(err, unix.EIDRM):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("compare %s with the image: copy message %d: %w", name(q), index, err)
	}
	return isMessage(got[:kernel.HeaderLen+n], want), nil
}
