package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipc-cr/ipc-cr/hack/bench/reference"
)

// A row is one operation on one shape: the best of each contender, by name.
type row struct {
	shape   *shape
	op      operation
	pace    pace
	results map[string]result
	failed  map[string]bool
}

type bench struct {
	programs  reference.Programs
	dir       string
	runs      int // fixed number, if not 0
	cPrograms []contender
	library   contender
	command   []contender // the one, or none if there is no binary to measure
	failures  error       // of contenders: they do not end the benchmark
}

// contenders returns who takes part in a shape, in the order of their turns.
func (b *bench) contenders(s *shape) []contender {
	all := append(slices.Clone(b.cPrograms), b.library)
	if s.command {
		all = slices.Concat(b.cPrograms, b.command)
	}
	return slices.DeleteFunc(all, func(c contender) bool { return c.name == s.without })
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
	contenders := b.contenders(s)
	copies, err := b.alternate(ctx, s, copying, contenders, func(c *contender, times int) (result, error) {
		return b.copyTurn(ctx, c, job{op: copying, times: times, ns: source, dir: filepath.Join(dir, c.name), plan: plan})
	})
	if err := errors.Join(err, source.close()); err != nil {
		return nil, err
	}
	contenders = slices.DeleteFunc(contenders, func(c contender) bool { return copies.failed[c.name] })
	restores, err := b.alternate(ctx, s, restoring, contenders, func(c *contender, times int) (result, error) {
		return b.restoreTurn(ctx, c, job{op: restoring, times: times, dir: filepath.Join(dir, c.name), plan: plan})
	})
	return []row{copies, restores}, err
}

// copyTurn copies into a fresh directory, which the restores then read.
func (b *bench) copyTurn(ctx context.Context, c *contender, j job) (result, error) {
	if err := os.RemoveAll(j.dir); err != nil {
		return result{}, err
	}
	if err := os.Mkdir(j.dir, 0o700); err != nil {
		return result{}, err
	}
	return c.run(ctx, b.programs, j)
}

// restoreTurn restores into fresh namespaces, and compares the last.
func (b *bench) restoreTurn(ctx context.Context, c *contender, j job) (r result, err error) {
	if !c.pins {
		if j.ns, err = newNamespace(ctx, b.programs, j.plan, "empty"); err != nil {
			return r, err
		}
	}
	r, err = c.run(ctx, b.programs, j)
	if err == nil && c.pins {
		j.ns, err = pinnedNamespace(ctx, b.programs, j.plan, pinIn(j.dir))
	}
	if j.ns == nil {
		return r, err
	}
	if err == nil {
		if err = j.ns.verify(); err != nil {
			err = fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return r, errors.Join(err, j.ns.close())
}
