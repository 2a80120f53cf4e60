package msgq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// Copy implements kind.Survey with MSG_COPY, on several threads where there are
// several queues. A namespace without queues leaves no file.
func (s *survey) Copy(ctx context.Context, t *kind.Target, k kernel.Kernel, stage *images.Stage) (images.Details, error) {
	if s.table.Queues == 0 {
		return images.Details{[]byte("[]")}, nil
	}
	file, err := stage.Create(images.MsgKind)
	if err != nil {
		return nil, err
	}
	if err := images.WriteHeader(file, images.MsgKind); err != nil {
		return nil, err
	}
	j := newJob(ctx, t, s.table, file)
	j.slots.keep = func(q *kernel.Queue) bool { return s.chosen.Has(q.Key, q.UID) }
	err = j.run(k)
	s.queues = j.slots.queues()
	if err != nil {
		return nil, err
	}
	if len(s.queues) == 0 {
		return nil, fmt.Errorf("all queues: %w", kind.ErrChanged)
	}
	return j.out.details(), nil
}

// headOf returns a queue as the image holds it: with ids as the namespace's own
// user namespace knows them.
func headOf(q *kernel.Queue, owner *nsenter.Owner) (images.Queue, error) {
	head := images.Queue{ID: uint32(q.ID), Key: uint32(q.Key), Mode: q.Mode, QNum: uint32(q.QNum), QBytes: uint32(q.QBytes)}
	if q.QBytes > math.MaxUint32 {
		return head, fmt.Errorf("%s: qbytes %d does not fit CRIU's format, which ends at %d", name(q), q.QBytes, uint32(math.MaxUint32))
	}
	if err := mapIn(&head, q, owner); err != nil {
		return head, fmt.Errorf("%s: %w", name(q), err)
	}
	return head, nil
}

// job is the copy of all queues. A queue is looked at right before it is copied:
// both in turn touch the same memory of the kernel's. What that look finds is
// what the second one, when all are copied, must find too.
type job struct {
	ctx    context.Context
	target *kind.Target
	table  kernel.Table
	slots  *slots
	out    *ordered

	mu    sync.Mutex
	walks []kernel.Walk // of all threads
}

// releases has the job release what one of its threads walks with.
func (j *job) releases(w kernel.Walk) {
	j.mu.Lock()
	j.walks = append(j.walks, w)
	j.mu.Unlock()
}

func newJob(ctx context.Context, t *kind.Target, table kernel.Table, w io.Writer) *job {
	return &job{ctx: ctx, target: t, table: table, slots: newSlots(table, copyWidth(table)), out: newOrdered(w)}
}

// copyWidth is how many indexes are a share of work, by what is in a queue on
// average.
func copyWidth(table kernel.Table) int {
	queues := int64(max(table.Queues, 1))
	width := min(shareBytes*queues/int64(max(table.Bytes, 1)), shareMessages*queues/int64(max(table.Messages, 1)), shareQueues)
	return int(max(width, 1))
}

func (j *job) run(k kernel.Kernel) error {
	room := min(j.size(), flushAt+flushAt/2)
	t := threads{space: j.target.Space, fail: j.out.fail, begin: func() work {
		c := &copier{job: j, block: &images.Block{}}
		c.block.Reserve(room)
		return c.work
	}}
	defer func() {
		for _, w := range j.walks {
			w.Release()
		}
	}()
	return t.run(k, j.slots.shares())
}

// size is about how long the image becomes, or more than flushAt.
func (j *job) size() int {
	const head = 64 // of a queue; a message's is shorter
	return head*j.table.Queues + int(min(j.table.Bytes, holdAt)) + head/2*int(min(j.table.Messages, holdAt))
}

// copier copies shares of the queues on one thread.
type copier struct {
	*job
	k       kernel.Kernel
	walk    kernel.Walk // nil until it is needed
	share   int
	writer  writer
	block   *images.Block
	spare   []*images.Block // for the next large queue
	details details

	sample   sample
	unpolled int // bytes since the last look at the context
	counted  int // messages of the queue at hand that progress knows of
}

func (c *copier) work(k kernel.Kernel, s share) error {
	c.k, c.share, c.details.lines = k, s.number, nil
	queues, err := c.slots.fill(k, s)
	if err != nil {
		return err
	}
	c.details.lines = make([]byte, 0, detailSize*len(queues))
	for i := range queues {
		if err := c.queue(&queues[i]); err != nil {
			return err
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.out.pass(c.details.lines)
	return nil
}

// queue copies one queue. The content's checksum covers the messages with their
// heads, as they stand in the image.
func (c *copier) queue(q *kernel.Queue) error {
	head, err := headOf(q, c.target.Owner)
	if err != nil {
		return err
	}
	c.block.Queue(&head)
	c.counted = 0
	c.writer = writer{out: c.out, share: c.share, mark: c.block.Len()}
	if q.CBytes >= behindFrom {
		c.writer.behind = newBehind(c.out, c.share, blocksFor(q), c.spare)
	}
	err = c.messages(q)
	sum, writeErr := c.writer.finish(c.block)
	if c.writer.behind != nil {
		c.spare = c.writer.behind.spare()
	}
	if err != nil || writeErr != nil {
		return cmp.Or(writeErr, err)
	}
	c.target.Done.Add(int(q.QNum) - c.counted)
	c.details.add(q, images.Sum(sum))
	return nil
}

func (c *copier) messages(q *kernel.Queue) (err error) {
	if walk := c.walkOf(q); walk != nil {
		return c.walked(q, walk)
	}
	size := newSizer(int(q.QNum), int(q.CBytes))
	for index := range int(q.QNum) {
		if err := c.message(q, &size, index); err != nil {
			return err
		}
		if c.block, err = c.writer.full(c.block); err != nil {
			return err
		}
	}
	if size.left != 0 {
		return changed(q)
	}
	return nil
}

// pollEvery is how many messages are copied or sent between two looks at the
// context.
const pollEvery = 32

// pollBytes is how many bytes of them are copied between two looks.
const pollBytes = 16 << 20

func (c *copier) message(q *kernel.Queue, size *sizer, index int) error {
	if err := c.poll(q, index); err != nil {
		return err
	}
	for {
		n, err := c.k.Copy(q.ID, c.block.Room(size.next()), index)
		if err == nil {
			c.block.Message(n)
			c.unpolled += n
			size.took(n, index)
			return nil
		}
		if err := c.another(q, size, index, err); err != nil {
			return err
		}
	}
}

// another decides what an error of MSG_COPY means: nil asks for another try.
func (c *copier) another(q *kernel.Queue, size *sizer, index int, err error) error {
	switch {
	case errors.Is(err, unix.E2BIG) && size.grow():
		return nil
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOMSG), errors.Is(err, unix.EIDRM):
		return changed(q)
	case errors.Is(err, unix.EINVAL):
		return c.raiseMsgmax(q, size)
	}
	return c.copyError(q, index, err)
}

// copyError says what MSG_COPY failed with, and what helps.
func (c *copier) copyError(q *kernel.Queue, index int, err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%w (needs read permission on the queue, or CAP_IPC_OWNER)", err)
	case errors.Is(err, unix.ENOSYS):
		err = fmt.Errorf("MSG_COPY: %w (kernel without CONFIG_CHECKPOINT_RESTORE)", err)
	}
	return fmt.Errorf("%s: copy message %d of %d: %w", name(q), index, q.QNum, err)
}

// raiseMsgmax makes room for a message that is longer than the namespace's
// msgmax, which was lowered after the message was sent: the kernel refuses to
// copy it whatever the buffer (ipc/msg.c, copy_msg).
func (c *copier) raiseMsgmax(q *kernel.Queue, size *sizer) error {
	if now, err := c.k.Stat(q.ID); err != nil || now.Key != q.Key {
		return changed(q)
	}
	limit, err := c.k.Sysctl(msgmax)
	if err != nil {
		return err
	}
	if limit[0] >= int64(size.left) {
		return changed(q) // every message that is left would fit
	}
	return c.target.Limits.Raise(c.k, msgmax, int64(size.left))
}

func (c *copier) flush() error {
	err := c.out.write(c.share, c.block.Bytes())
	c.block.Reset()
	return err
}
