package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a ratio rests on: the smallest of so many turns of so many operations,
// and of fewer where a single one is long enough for its noise to be small.
const (
	usualRuns  = 15
	longRuns   = 3
	longRun    = 2 * time.Second
	usualTimes = 5
	longTime   = time.Second / 2
)

// A pace is how many turns a contender has, and how many operations in each.
type pace struct{ runs, times int }

// pace sets the pace where one operation takes so long for the slowest.
func (b *bench) pace(s *shape, operation time.Duration) pace {
	p := pace{usualRuns, usualTimes}
	if operation > longTime || s.command {
		p.times = 1
	}
	if operation > longRun {
		p.runs = longRuns
	}
	if s.runs != 0 {
		p.runs = s.runs
	}
	if b.runs != 0 {
		p.runs = b.runs
	}
	return p
}

// turn is one turn of a contender: so many operations in one process.
type turn func(c *contender, times int) (result, error)

// alternate lets the contenders take turns. A first round, of one operation
// each, only sets the pace.
func (b *bench) alternate(ctx context.Context, s *shape, op operation, contenders []contender, turn turn) (row, error) {
	r := row{shape: s, op: op, failed: map[string]bool{}}
	if !s.command {
		if err := b.round(ctx, &r, contenders, turn, 1); err != nil {
			return r, err
		}
	}
	r.pace = b.pace(s, r.slowest())
	r.results = nil
	for range r.pace.runs {
		if err := b.round(ctx, &r, contenders, turn, r.pace.times); err != nil {
			return r, err
		}
	}
	return r, nil
}

// round is one turn of each. A contender that fails is out.
func (b *bench) round(ctx context.Context, r *row, contenders []contender, turn turn, times int) error {
	for i := range contenders {
		c := &contenders[i]
		if r.failed[c.name] {
			continue
		}
		once, err := turn(c, times)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.failures = errors.Join(b.failures, fmt.Errorf("%s: %w", r.shape.name, err))
			r.failed[c.name] = true
			delete(r.results, c.name)
			continue
		}
		r.add(c.name, once)
	}
	return nil
}

func (r *row) slowest() (operation time.Duration) {
	for _, x := range r.results {
		operation = max(operation, x.operation)
	}
	return operation
}

// add keeps the smallest times and the largest memory.
func (r *row) add(name string, once result) {
	if r.results == nil {
		r.results = map[string]result{}
	}
	best, ok := r.results[name]
	if !ok {
		r.results[name] = once
		return
	}
	r.results[name] = result{
		operation: min(best.operation, once.operation),
		process:   min(best.process, once.process),
		peak:      max(best.peak, once.peak),
	}
}
