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
}

// compare tells whether a live queue with the record's id and key is equal to
// it, or what a killed restore left of it: closed to everybody, never received
// from, and filled with what the image begins with. There is nothing to lose in
// that.
func (c *comparer) compare(q *kernel.Queue, r *record) (verdict, error) {
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

// stray tells whether a queue with the record's key and another id is one that a
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

// content tells whether the messages that are in the queue are the first of the
// record's.
func (c *comparer) content(q *kernel.Queue, r *record) (bool, error) {
	cursor := cursor{source: c.source}
	defer cursor.rest()
	messages, err := cursor.at(r, r.end())
	if err != nil {
		return false, err
	}
	for index := range int(q.QNum) {
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
		same, err := c.message(q, index, &want)
		if !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *comparer) message(q *kernel.Queue, index int, want *images.Payload) (bool, error) {
	size := kernel.HeaderLen + int(want.Size)
	if cap(c.buf) < size {
		c.buf = make([]byte, size)
	}
	got := c.buf[:size]
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
	mtype := int64(binary.NativeEndian.Uint64(got))
	return n == int(want.Size) && mtype == want.Type && bytes.Equal(got[kernel.HeaderLen:], want.Bytes()), nil
}
