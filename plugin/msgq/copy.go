package msgq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// Copy implements kind.Survey with MSG_COPY, on several threads where there are
// several queues. A namespace without queues leaves no file.
func (s *survey) Copy(ctx context.Context, t *kind.Target, k kernel.Kernel, stage *images.Stage) (json.RawMessage, error) {
	if len(s.queues) == 0 {
		return json.RawMessage("[]"), nil
	}
	heads, err := s.heads(t.Owner)
	if err != nil {
		return nil, err
	}
	file, err := stage.Create(images.MsgKind)
	if err != nil {
		return nil, err
	}
	if err := images.WriteHeader(file, images.MsgKind); err != nil {
		return nil, err
	}
	j := &job{ctx: ctx, target: t, queues: s.queues, heads: heads, out: newOrdered(file)}
	if err := j.run(k); err != nil {
		return nil, err
	}
	return j.out.end(), nil
}

// heads returns the queues as the image holds them: ids as the namespace's own
// user namespace knows them.
func (s *survey) heads(owner *nsenter.Owner) ([]images.Queue, error) {
	heads := make([]images.Queue, len(s.queues))
	for i := range s.queues {
		q := &s.queues[i]
		head := &heads[i]
		*head = images.Queue{ID: uint32(q.ID), Key: uint32(q.Key), Mode: q.Mode, QNum: uint32(q.QNum), QBytes: uint32(q.QBytes)}
		if q.QBytes > math.MaxUint32 {
			return nil, fmt.Errorf("%s: qbytes %d does not fit CRIU's format, which ends at %d", head, q.QBytes, uint32(math.MaxUint32))
		}
		if err := mapIn(head, q, owner); err != nil {
			return nil, fmt.Errorf("%s: %w", head, err)
		}
	}
	return heads, nil
}

// job is the copy of all queues.
type job struct {
	ctx    context.Context
	target *kind.Target
	queues []kernel.Queue
	heads  []images.Queue
	out    *ordered
}

// A thread's share of work is a run of queues of about this size: large enough
// to be worth a write, small enough to keep several threads busy.
const (
	shareBytes    = 128 << 10
	shareQueues   = 256
	shareMessages = 1024
)

func (j *job) run(k kernel.Kernel) error {
	shares := split(len(j.queues), func(i int) (bytes, messages int) {
		return int(j.queues[i].CBytes), int(j.queues[i].QNum)
	})
	return onThreads(k, j.target.Space, shares, func() worker {
		return &copier{job: j}
	}, j.out.fail)
}

// copier copies shares of the queues on one thread.
type copier struct {
	*job
	k       kernel.Kernel
	share   int
	block   images.Block
	details details
}

// flushAt is how much a thread holds in memory before it writes, the longest
// message apart. Threads whose turn it is not yet wait with this much.
const flushAt = 1 << 20

func (c *copier) work(k kernel.Kernel, s share) error {
	c.k, c.share = k, s.number
	for i := s.from; i < s.to; i++ {
		if err := c.queue(&c.queues[i], &c.heads[i]); err != nil {
			return err
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.out.pass(c.details.take())
	return nil
}

// queue copies one queue. The content's checksum covers the messages with their
// heads, as they stand in the image.
func (c *copier) queue(q *kernel.Queue, head *images.Queue) error {
	c.block.Queue(head)
	var (
		size = newSizer(int(q.QNum), int(q.CBytes))
		sum  uint32
		mark = c.block.Len()
	)
	for index := range int(q.QNum) {
		if err := c.message(q, &size, index); err != nil {
			return err
		}
		if c.block.Len() < flushAt {
			continue
		}
		sum, mark = images.Checksum(sum, c.block.Bytes()[mark:]), 0
		if err := c.flush(); err != nil {
			return err
		}
	}
	if size.left != 0 {
		return changed(q)
	}
	c.target.Done.Add(int(q.QNum))
	c.details.add(q, images.Sum(images.Checksum(sum, c.block.Bytes()[mark:])))
	return nil
}

// pollEvery is how many messages are copied or sent between two looks at the
// context.
const pollEvery = 32

func (c *copier) message(q *kernel.Queue, size *sizer, index int) error {
	if index%pollEvery == 0 {
		if err := context.Cause(c.ctx); err != nil {
			return fmt.Errorf("%s: copy message %d of %d: %w", name(q), index, q.QNum, err)
		}
	}
	for {
		n, err := c.k.Copy(q.ID, c.block.Room(size.next()), index)
		if err == nil {
			c.block.Message(n)
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

// details are the lines of the JSON file: what CRIU's format cannot hold. They
// are put together by hand because there can be very many.
type details struct {
	lines  []byte
	second int64
	text   []byte // second in RFC 3339
}

func (d *details) add(q *kernel.Queue, sum images.Sum) {
	b := append(d.lines, ",\n      {\"msqid\": "...)
	b = strconv.AppendInt(b, int64(q.ID), 10)
	b = append(b, `, "crc32c": "`...)
	b, _ = sum.AppendText(b)
	b = append(b, `", "lspid": `...)
	b = strconv.AppendInt(b, int64(q.LSPID), 10)
	b = append(b, `, "lrpid": `...)
	b = strconv.AppendInt(b, int64(q.LRPID), 10)
	b = d.time(append(b, `, "stime": `...), q.STime)
	b = d.time(append(b, `, "rtime": `...), q.RTime)
	b = d.time(append(b, `, "ctime": `...), q.CTime)
	d.lines = append(b, '}')
}

// time appends a time in RFC 3339, or null for none. Most queues share a second.
func (d *details) time(b []byte, second int64) []byte {
	if second == 0 {
		return append(b, "null"...)
	}
	if second != d.second {
		d.second = second
		d.text = time.Unix(second, 0).UTC().AppendFormat(append(d.text[:0], '"'), time.RFC3339)
		d.text = append(d.text, '"')
	}
	return append(b, d.text...)
}

func (d *details) take() []byte {
	lines := d.lines
	d.lines = nil
	return lines
}
