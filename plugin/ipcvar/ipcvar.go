// Package ipcvar carries the sysctls of an IPC namespace between the kernel and
// CRIU's ipcns-var image. It is a kind: a value for the slice that the engine in
// package plugin is given.
//
// A checkpoint saves all sysctls that CRIU saves. A restore into an empty
// namespace sets those that bound message queues; the others bound objects that
// ipc-cr does not carry.
package ipcvar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// Kind is the kind of IPC sysctls. The zero value is ready.
type Kind struct{}

var _ kind.Selectable = Kind{}

// Name implements kind.Kind.
func (Kind) Name() string { return "ipcvar" }

// Select implements kind.Selectable: limits are nobody's objects.
func (of Kind) Select(kind.Selection) kind.Kind { return of }

// survey is the value of every sysctl of the table, nil for one that this kernel
// does not have.
type survey struct {
	values [][]int64
}

// Survey implements kind.Kind.
func (Kind) Survey(_ *kind.Target, k kernel.Kernel) (kind.Survey, error) { return read(k) }

func read(k kernel.Kernel) (*survey, error) {
	s := &survey{values: make([][]int64, len(sysctls))}
	for i := range sysctls {
		value, err := k.Sysctl(sysctls[i].name)
		if errors.Is(err, fs.ErrNotExist) && sysctls[i].optional {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.values[i] = value
	}
	return s, nil
}

// Recheck implements kind.Survey.
func (s *survey) Recheck(_ *kind.Target, k kernel.Kernel) error {
	now, err := read(k)
	if err != nil {
		return err
	}
	for i := range sysctls {
		if !slices.Equal(s.values[i], now.values[i]) {
			return fmt.Errorf("sysctl %s: %w", sysctls[i].name, kind.ErrChanged)
		}
	}
	return nil
}

// Busy implements kind.Survey: sysctls have no time stamps.
func (s *survey) Busy(int64, int64, func(int) bool) string { return "" }

// Walking implements kind.Kind: there is nothing to walk along.
func (Kind) Walking(kernel.Kernel, time.Duration) (least, most time.Duration, err error) {
	return 0, 0, nil
}

// EachWalking implements kind.Kind.
func (Kind) EachWalking(*kind.Target, kernel.Kernel, func(time.Duration)) error { return nil }

// Size implements kind.Survey.
func (s *survey) Size() kind.Size { return kind.Size{} }

// Copy implements kind.Survey: the survey is all there is.
func (s *survey) Copy(_ context.Context, _ *kind.Target, _ kernel.Kernel, stage *images.Stage) (images.Details, error) {
	vars := &images.Vars{}
	for i := range sysctls {
		if s.values[i] == nil {
			continue
		}
		if err := sysctls[i].save(vars, s.values[i]); err != nil {
			return nil, fmt.Errorf("sysctl %s: %w", sysctls[i].name, err)
		}
	}
	file, err := stage.Create(images.VarKind)
	if err != nil {
		return nil, err
	}
	return nil, images.WriteVars(file, vars)
}

// Load implements kind.Kind.
func (Kind) Load(_ context.Context, set *images.Set, _ *nsenter.Owner) (kind.Image, error) {
	file, _, err := set.Open(images.VarKind)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := &images.SumReader{R: file}
	vars, err := images.ReadVars(set.Path(images.VarKind), sum)
	if err != nil {
		return nil, err
	}
	if err := bounds(vars); err != nil {
		return nil, &images.FormatError{File: set.Path(images.VarKind), Offset: 8, Reason: err.Error()}
	}
	set.Checked(images.VarKind, sum.Size, sum.CRC)
	return &image{vars: vars}, nil
}
