package msgq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// walking is what MSG_COPY spends on walking to the messages of a queue, each time
// from the head. With several queues it is the least: when all have equally many. The
// most is that of one queue that has them all.
func walking(messages, queues uint64) time.Duration {
	n := float64(messages)
	return time.Duration(min(n*n/2/float64(max(queues, 1))*nsPerStep, float64(time.Hour))) // sums must not overflow
}

// Walking implements kind.Kind.
func (of Kind) Walking(k kernel.Kernel, worth time.Duration) (least, most time.Duration, err error) {
	table, err := count(k)
	queues := uint64(max(table.Queues, 1))
	alike := walking(uint64(table.Messages), queues)
	if of.chosen == nil && alike >= worth*time.Duration(queues) { // the numbers are not those of chosen queues
		least = alike
	}
	if table.MaxIndex > quickIndexes {
		return least, least, err
	}
	return least, walking(uint64(table.Messages), 1), err
}

// quickIndexes is how many indexes can be looked at for what loading the program
// takes. With more than that EachWalking costs more than it may spare.
const quickIndexes = 8 << 10

// EachWalking implements kind.Kind.
func (of Kind) EachWalking(t *kind.Target, k kernel.Kernel, tell func(time.Duration)) error {
	table, err := count(k)
	if err != nil {
		return err
	}
	return eachIndex(t.Space, k, table.MaxIndex, func(k kernel.Kernel, part share) error {
		return statRange(k, part, func(q *kernel.Queue) error {
			if of.chosen.Has(q.Key, q.UID) {
				tell(walking(q.QNum, 1))
			}
			return nil
		})
	})
}

// walkOf returns what walks along a queue, nil for MSG_COPY.
func (c *copier) walkOf(q *kernel.Queue) kernel.Walk {
	if c.target.Walker == nil || q.QNum == 0 {
		return nil
	}
	walker := c.target.Walker(walking(q.QNum, 1))
	if walker == nil {
		return nil
	}
	if c.walk == nil {
		if c.walk = walker.Walk(); c.walk != nil {
			c.releases(c.walk)
		}
	}
	return c.walk
}

// walkError is what a walk failed with, or the proof that it cannot be relied on.
type walkError struct{ error }

func (e walkError) Unwrap() error { return e.error }

// walked copies the messages of a queue by one walk. What speaks against the walk
// speaks against the queue, if that was used meanwhile.
func (c *copier) walked(q *kernel.Queue, walk kernel.Walk) error {
	err := c.along(q, walk)
	var wrong walkError
	if !errors.As(err, &wrong) {
		return err
	}
	var now kernel.Queue
	if err := c.k.StatIndex(int(q.ID)&(1<<c.k.IndexBits()-1), &now); err != nil || now != *q {
		return changed(q)
	}
	return fmt.Errorf("%s: %w: %w", name(q), kind.ErrWalk, wrong.error)
}

func (c *copier) along(q *kernel.Queue, walk kernel.Walk) error {
	if err := walk.Begin(q); err != nil {
		return walkError{err}
	}
	c.sample.begin(q)
	for index := range int(q.QNum) {
		if err := c.poll(q, index); err != nil {
			return err
		}
		size, err := walk.Next()
		if err != nil {
			return walkError{err}
		}
		room := c.block.Room(size)[:kernel.HeaderLen+size]
		if err := walk.Read(room); err != nil {
			return walkError{err}
		}
		if err := c.sample.check(c.k, room, index); err != nil {
			return c.disagrees(q, index, err)
		}
		c.block.Message(size)
		c.unpolled += size
		if c.block, err = c.writer.full(c.block); err != nil {
			return err
		}
	}
	if err := walk.End(); err != nil {
		return walkError{err}
	}
	return nil
}

// disagrees decides what it means that MSG_COPY did not give what the walk gave.
// Who may not read a queue must not learn by a walk what is in it.
func (c *copier) disagrees(q *kernel.Queue, index int, err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		return c.copyError(q, index, err)
	}
	return walkError{fmt.Errorf("message %d of %d: %w", index, q.QNum, err)}
}

// poll looks at the context now and then.
func (c *copier) poll(q *kernel.Queue, index int) error {
	if index%pollEvery != 0 && c.unpolled < pollBytes {
		return nil
	}
	c.unpolled = 0
	c.target.Done.Add(index - c.counted)
	c.counted = index
	if err := context.Cause(c.ctx); err != nil {
		return fmt.Errorf("%s: copy message %d of %d: %w", name(q), index, q.QNum, err)
	}
	return nil
}

// sampleBytes bounds how much of a queue is copied a second time.
const sampleBytes = 1 << 20

// sample compares some messages of a walk with what MSG_COPY gives: the first, the
// last, and three in between. MSG_COPY walks to each of them, two and a half
// times the queue in all. The first is compared whatever its length, because who
// may not read the queue must be refused; where msgmax was lowered below it, one
// that comes later.
type sample struct {
	id     int32
	last   int
	spare  int // bytes
	proved int // messages that were the same
	buf    []byte
}

func (s *sample) begin(q *kernel.Queue) {
	*s = sample{id: q.ID, last: int(q.QNum) - 1, spare: sampleBytes, buf: s.buf}
}

func (s *sample) due(index int) bool {
	if s.proved == 0 && index&(index-1) == 0 { // the ones before were all too long
		return true
	}
	return index == s.last || index == s.last/4 || index == s.last/2 || index == s.last/4*3
}

var errSample = errors.New("the walk and MSG_COPY gave different messages")

func (s *sample) check(k kernel.Kernel, message []byte, index int) error {
	if !s.due(index) || s.proved > 0 && len(message) > s.spare {
		return nil
	}
	if cap(s.buf) < len(message) {
		s.buf = make([]byte, len(message))
	}
	n, err := k.Copy(s.id, s.buf[:len(message)], index)
	switch {
	case errors.Is(err, unix.EINVAL): // longer than msgmax: MSG_COPY refuses it
		return nil
	case err != nil:
		return err
	case kernel.HeaderLen+n != len(message) || !bytes.Equal(s.buf[:len(message)], message):
		return errSample
	}
	s.proved++
	s.spare -= len(message)
	return nil
}
