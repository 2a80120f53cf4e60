package warden

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// listen answers whoever connects until the end.
func (p *post) listen() {
	for {
		conn, err := p.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory, for a moment
			_ = pause(p.ctx, true)
			continue
		}
		go p.serve(conn)
	}
}

// serve answers one request.
func (p *post) serve(conn *net.UnixConn) {
	defer conn.Close()
	if checkPeer(conn, 0) != nil || conn.SetDeadline(time.Now().Add(answerTimeout)) != nil {
		return
	}
	r, passed, err := receiveRequest(conn)
	if err != nil {
		_ = sendLine(conn, reply{Failure: newFailure(late(err, "no request came", answerTimeout))})
		return
	}
	if passed != nil {
		defer passed.Close()
	}
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := untilHungUp(p.ctx, conn)
	defer cancel()
	if r.Do == doEnd {
		p.sayEnd(conn)
		return
	}
	answer := p.answer(ctx, r, passed)
	_ = conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	_ = sendLine(conn, answer)
}

// sayEnd answers before the process ends.
func (p *post) sayEnd(conn *net.UnixConn) {
	p.asked.Store(true)
	err := p.finish()
	_ = conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	_ = sendLine(conn, reply{Failure: newFailure(err)})
	p.leave()
}

// answer does one thing at a time.
func (p *post) answer(ctx context.Context, r request, passed *os.File) (a reply) {
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return reply{Failure: newFailure(p.whyDone(context.Cause(ctx)))}
	}
	var err error
	switch r.Do {
	case doPing:
	case doHold:
		a.Held, err = p.startHold(ctx, r, passed)
	case doLet:
		a.Stood, err = p.let()
	case doAside:
		err = p.setAside(ctx, r, passed)
	default:
		err = fmt.Errorf("%q is nothing that this ipc-cr does", r.Do)
	}
	if err != nil && ctx.Err() != nil {
		err = p.whyDone(err)
	}
	a.Failure = newFailure(err)
	return a
}

// whyDone tells the warden's own end from the other side's.
func (p *post) whyDone(err error) error {
	if p.ctx.Err() != nil && !errors.Is(err, errEnding) {
		return fmt.Errorf("%w: %w", errEnding, err)
	}
	return err
}
