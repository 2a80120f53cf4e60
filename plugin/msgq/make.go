package msgq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// ownPID is whom the kernel notes as the sender. It is asked for once: with many
// small queues that is felt.
var ownPID = int32(os.Getpid())

// Make implements kind.Plan. Queues are created one after the other, because
// each takes its id from the one msg_next_id of the namespace; behind that they
// are filled by several threads.
func (p *plan) Make(ctx context.Context, t *kind.Target, k kernel.Kernel) error {
	shares := p.shares()
	created := newTurns()
	all := threads{space: t.Space, fail: created.fail}
	all.first = func(k kernel.Kernel) error {
		c := creation{ctx: ctx, k: k, target: t, natural: natural{empty: p.live == 0}}
		return c.run(p.steps, shares, created)
	}
	all.begin = func() work {
		f := &filler{ctx: ctx, cursor: cursor{source: &p.image.source}, progress: t.Done}
		fill := p.each(f.fill)
		return func(k kernel.Kernel, s share) error {
			if err := created.wait(s.number + 1); err != nil {
				return err
			}
			f.end = p.steps[s.to-1].end()
			defer f.cursor.rest()
			return fill(k, s)
		}
	}
	return all.run(k, shares)
}

func (p *plan) shares() []share {
	return split(len(p.steps), func(i int) (bytes, messages int) {
		return int(p.steps[i].bytes), int(p.steps[i].QNum)
	})
}

// each makes work of what is to be done with every queue that this run made.
func (p *plan) each(call func(kernel.Kernel, *step) error) work {
	return func(k kernel.Kernel, s share) error {
		for i := s.from; i < s.to; i++ {
			if !p.steps[i].done {
				continue
			}
			if err := call(k, &p.steps[i]); err != nil {
				return fmt.Errorf("restore %s: %w", &p.steps[i].Queue, err)
			}
		}
		return nil
	}
}

// eachMade calls a function for every queue that this run made, on several
// threads where there are many queues.
func (p *plan) eachMade(t *kind.Target, k kernel.Kernel, call func(kernel.Kernel, *step) error) error {
	all := threads{space: t.Space, begin: func() work { return p.each(call) }}
	return all.run(k, splitEvenly(len(p.steps), shareQueues))
}

// creation creates queues with the ids they had.
type creation struct {
	ctx     context.Context
	k       kernel.Kernel
	target  *kind.Target
	natural natural
}

// run creates the queues and counts the shares that are ready to be filled.
func (c *creation) run(steps []step, shares []share, created *turns) error {
	for _, share := range shares {
		if err := context.Cause(c.ctx); err != nil {
			return fmt.Errorf("restore %s: %w", &steps[share.from].Queue, err)
		}
		for i := share.from; i < share.to; i++ {
			if !steps[i].makes() {
				continue
			}
			if err := c.create(&steps[i]); err != nil {
				return fmt.Errorf("restore %s: %w", &steps[i].Queue, err)
			}
		}
		created.next()
	}
	return nil
}

// stolen is how often a queue is tried again when it comes out with another id:
// another task's msgget can take the id that was written to msg_next_id.
const stolen = 8

func (c *creation) create(s *step) error {
	for i := range s.remove {
		if err := c.clear(s, &s.remove[i]); err != nil {
			return fmt.Errorf("remove %s: %w", name(&s.remove[i]), err)
		}
	}
	want := int32(s.ID)
	for range stolen {
		id, err := c.get(s, want)
		if err != nil {
			return err
		}
		if id == want {
			s.done = true
			return nil
		}
		if err := remove(c.k, id); err != nil {
			s.astray = append(s.astray, id)
			return fmt.Errorf("remove queue %d, which came out instead: %w", id, err)
		}
	}
	return fmt.Errorf("msgget: the id is taken%s", c.occupant(want))
}

// remove is content with a queue that is gone already.
func remove(k kernel.Kernel, id int32) error {
	err := k.Remove(id)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return nil
	}
	return err
}

func (c *creation) get(s *step, want int32) (int32, error) {
	guess := c.natural.expects(s)
	if !guess {
		if err := c.k.SetNextID(want); err != nil {
			return 0, err
		}
	}
	id, err := c.k.Create(int32(s.Key), s.inProgressMode(), s.creator)
	if errors.Is(err, unix.ENOSPC) {
		return 0, fmt.Errorf("%w (as many queues as %s allows)", err, msgmni)
	}
	if err == nil && guess {
		c.natural.got(id, want)
	}
	return id, err
}

// occupant names the queue that has the slot of an id.
func (c *creation) occupant(id int32) string {
	live, err := stat(c.target.Space, c.k)
	if err != nil {
		return ""
	}
	mask := int32(1)<<c.k.IndexBits() - 1
	i := slices.IndexFunc(live, func(q kernel.Queue) bool { return q.ID&mask == id&mask })
	if i < 0 {
		return ""
	}
	return " by " + name(&live[i])
}

// natural foretells the ids that the kernel gives by itself: one after the other
// from 0 in a fresh namespace (ipc/util.c, ipc_idr_alloc). Where the wanted id
// is the natural one, msg_next_id need not be written.
//
// The first guess may be wrong, if queues have come and gone before. It is only
// made for a queue with a key: killed right there, a restore leaves a queue that
// its next run knows by the key.
type natural struct {
	empty bool // no queue was in the namespace
	known bool
	wrong bool
	next  int32
}

func (n *natural) expects(s *step) bool {
	if n.wrong {
		return false
	}
	if !n.known {
		return n.empty && s.ID == 0 && s.Key != 0
	}
	return int32(s.ID) == n.next
}

func (n *natural) got(id, want int32) {
	n.known, n.wrong, n.next = true, id != want, id+1
}

// filler sends the messages of queues on one thread.
type filler struct {
	ctx      context.Context
	cursor   cursor
	progress *kind.Progress
	end      int64 // of the share in the image
	bufs     [pollEvery][]byte
}

func (f *filler) fill(k kernel.Kernel, s *step) error {
	messages, err := f.cursor.at(s.record, f.end)
	if err != nil {
		return err
	}
	for sent := 0; ; {
		if err := context.Cause(f.ctx); err != nil {
			return fmt.Errorf("send message %d of %d: %w", sent, s.QNum, err)
		}
		n, err := messages.Msgbufs(f.bufs[:])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, buf := range f.bufs[:n] {
			if err := k.Send(int32(s.ID), buf); err != nil {
				return fmt.Errorf("send message %d of %d: %w", sent, s.QNum, err)
			}
			sent++
		}
		f.progress.Add(n)
	}
	if err := f.cursor.unaltered(s.record); err != nil {
		return err
	}
	if s.QNum > 0 {
		s.lspid = ownPID
	}
	return nil
}
