package freeze

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// How long the tracing threads' end is waited for, which takes microseconds: of
// those that only have to let go, and of those that may be in a seizure that does
// not come back.
const (
	endTimeout   = 10 * time.Second
	stuckTimeout = 100 * time.Millisecond
)

// start stops h's tasks and holds them, in a goroutine of its own.
func (h *holder) start(ctx context.Context) (*Stopped, error) {
	letGo, ended := make(chan struct{}), make(chan error, 1)
	s := &Stopped{holder: h}
	s.end = sync.OnceValue(func() error { close(letGo); return <-ended })
	outcome := make(chan error)
	go func() {
		err := h.stopAll(ctx)
		if err == nil {
			s.report, s.processes = h.report(), h.processes()
			s.report.Seized, err = h.restSelf()
		}
		if err == nil {
			outcome <- nil
			h.reap(letGo)
		}
		watched := h.deadMan.begin()
		stuck, late := h.release()
		if late == nil {
			late = errors.Join(watched, h.deadMan.end())
		}
		if err != nil {
			outcome <- err // says more
		}
		ended <- late
		h.attend(stuck)
		h.proc.close()
	}()
	if err := <-outcome; err != nil {
		return nil, err
	}
	return s, nil
}

// restSelf ends the watch over this process where it has seized nobody, and reports
// whether it has somebody.
func (h *holder) restSelf() (seized bool, err error) {
	for _, m := range h.members {
		if m.seized {
			return true, nil
		}
	}
	return false, h.deadMan.end()
}

// release lets all tasks go and waits for the threads' end. It returns those that
// are stuck in a seizure.
func (h *holder) release() (stuck []*tracer, err error) {
	stopped := map[*tracer][]*member{}
	for _, m := range h.members {
		if m.stopped {
			stopped[m.by] = append(stopped[m.by], m)
		}
	}
	var busy []*tracer
	for _, t := range h.tracers.all {
		if t.busy.Load() {
			busy = append(busy, t)
		}
		t.end(stopped[t])
	}
	began := time.Now()
	for _, t := range h.tracers.all {
		if !slices.Contains(busy, t) && !t.ended(began.Add(endTimeout)) {
			err = fmt.Errorf("release tasks: tracing thread %d did not end within %v", t.tid, endTimeout)
		}
	}
	return slices.DeleteFunc(busy, func(t *tracer) bool { return t.ended(began.Add(stuckTimeout)) }), err
}

// attend reaps the dead of tracers that are stuck, without which the execve(2)
// that they wait for might not end, until it has.
func (h *holder) attend(stuck []*tracer) {
	for tid, m := range h.members {
		if !slices.Contains(stuck, m.by) {
			delete(h.members, tid)
		}
	}
	for len(stuck) > 0 {
		time.Sleep(reapPause)
		h.buryDead()
		stuck = slices.DeleteFunc(stuck, func(t *tracer) bool {
			select {
			case <-t.gone:
				return true
			default:
				return false
			}
		})
	}
}
