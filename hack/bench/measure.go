package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// What a ratio rests on: the smallest of so many runs, and of fewer where a
// single one is long enough for its noise to be small.
const (
	usualRuns = 15
	longRuns  = 3
	longRun   = 2 * time.Second
)

type bench struct {
	programs   programs
	dir        string
	runs       int // fixed number, if not 0
	contenders []contender
	failures   error // of contenders: they do not end the benchmark
}

// A row is one operation on one shape: the best of each contender, by name.
type row struct {
	shape   *shape
	op      operation
	runs    int
	results map[string]result
	failed  map[string]bool
}

func (b *bench) all(ctx context.Context, shapes []shape) ([]row, error) {
	var rows []row
	for i := range shapes {
		begin := time.Now()
		fmt.Fprintf(os.Stderr, "%s ...", shapes[i].name)
		two, err := b.shape(ctx, &shapes[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shapes[i].name, err)
		}
		fmt.Fprintf(os.Stderr, " %.1f s\n", time.Since(begin).Seconds())
		rows = append(rows, two...)
	}
	return rows, nil
}

func (b *bench) shape(ctx context.Context, s *shape) (rows []row, err error) {
	dir, err := os.MkdirTemp(b.dir, "shape-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	plan := filepath.Join(dir, "plan")
	if err := s.writePlan(plan); err != nil {
		return nil, err
	}
	source, err := newNamespace(ctx, b.programs, plan, "fill")
	if err != nil {
		return nil, err
	}
	turn := func(_ int, c *contender) (result, error) { return b.copyOnce(ctx, c, source, dir, plan) }
	copies, err := b.alternate(ctx, s, copying, b.contenders, turn)
	if err := errors.Join(err, source.close()); err != nil {
		return nil, err
	}
	turn = func(round int, c *contender) (result, error) { return b.restoreOnce(ctx, round, c, dir, plan) }
	copied := slices.DeleteFunc(slices.Clone(b.contenders), func(c contender) bool { return copies.failed[c.name] })
	restores, err := b.alternate(ctx, s, restoring, copied, turn)
	return []row{copies, restores}, err
}

// copyOnce copies into a fresh directory, which the restores then read.
func (b *bench) copyOnce(ctx context.Context, c *contender, source *namespace, dir, plan string) (result, error) {
	images := filepath.Join(dir, c.name)
	if err := os.RemoveAll(images); err != nil {
		return result{}, err
	}
	if err := os.Mkdir(images, 0o700); err != nil {
		return result{}, err
	}
	return c.run(ctx, b.programs, copying, source, images, plan)
}

// restoreOnce restores into a fresh namespace; in the first round it is compared.
func (b *bench) restoreOnce(ctx context.Context, round int, c *contender, dir, plan string) (result, error) {
	if c.pins {
		return b.restorePinned(ctx, round, c, dir, plan)
	}
	target, err := newNamespace(ctx, b.programs, plan, "empty")
	if err != nil {
		return result{}, err
	}
	r, err := c.run(ctx, b.programs, restoring, target, filepath.Join(dir, c.name), plan)
	if err == nil && round == 0 {
		if err = target.verify(); err != nil {
			err = fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return r, errors.Join(err, target.close())
}

// restorePinned is restoreOnce for a contender that makes the namespace itself.
func (b *bench) restorePinned(ctx context.Context, round int, c *contender, dir, plan string) (result, error) {
	r, err := c.run(ctx, b.programs, restoring, nil, filepath.Join(dir, c.name), plan)
	if err != nil {
		return r, err
	}
	target, err := pinnedNamespace(ctx, b.programs, plan, pinIn(filepath.Join(dir, c.name)))
	if err != nil {
		return r, err
	}
	if round == 0 {
		if err = target.verify(); err != nil {
			err = fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return r, errors.Join(err, target.close())
}

// alternate lets the contenders take turns. One that fails is out.
func (b *bench) alternate(ctx context.Context, s *shape, op operation, turns []contender,
	turn func(round int, c *contender) (result, error)) (row, error) {
	r := row{shape: s, op: op, runs: b.count(s), results: map[string]result{}, failed: map[string]bool{}}
	for round := 0; round < r.runs; round++ {
		for i := range turns {
			c := &turns[i]
			if r.failed[c.name] {
				continue
			}
			once, err := turn(round, c)
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			if err != nil {
				b.failures = errors.Join(b.failures, fmt.Errorf("%s: %w", s.name, err))
				r.failed[c.name] = true
				delete(r.results, c.name)
				continue
			}
			r.add(c.name, once)
			if once.operation > longRun && b.runs == 0 {
				r.runs = longRuns
			}
		}
	}
	return r, nil
}

func (b *bench) count(s *shape) int {
	switch {
	case b.runs != 0:
		return b.runs
	case s.runs != 0:
		return s.runs
	}
	return usualRuns
}

// add keeps the smallest times and the largest memory.
func (r *row) add(name string, once result) {
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
