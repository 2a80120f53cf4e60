package record

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// File is the record of one namespace, claimed: nobody else changes it, or
// restores into the namespace by it, until Close or this process's death.
type File struct {
	dir    *state.Dir
	target nsenter.Identity
	claim  *state.Claim // nil if there is nobody to claim it from
}

const (
	// turnTimeout is how long Open waits for another process.
	turnTimeout = time.Minute
	// pollInterval is the pause between two tries.
	pollInterval = 5 * time.Millisecond
)

// Open claims the record of a namespace, whether there is one or not. It waits
// up to a minute for another process that has it, then it is state.ErrBusy, as it is
// with ctx's cause where that ends the wait. dir must stay open until Close.
func Open(ctx context.Context, dir *state.Dir, target nsenter.Identity) (*File, error) {
	return open(ctx, dir, target, turnTimeout)
}

func open(ctx context.Context, dir *state.Dir, target nsenter.Identity, patience time.Duration) (*File, error) {
	name := lockName(target)
	deadline := time.Now().Add(patience)
	for {
		claim, err := claim(dir, name)
		switch {
		case err == nil:
			return &File{dir: dir, target: target, claim: claim}, nil
		case !errors.Is(err, state.ErrBusy) && !errors.Is(err, unix.ENOENT):
			return nil, fmt.Errorf("record: %w", err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("record: another restore into the namespace has not ended in %v: %w", patience, err)
		}
		select {
		case <-ctx.Done():
			// Whatever the cause is, the record is another's, and is not to be done without.
			return nil, fmt.Errorf("record: %w: wait for another restore into the namespace to end: %w", state.ErrBusy, context.Cause(ctx))
		case <-time.After(pollInterval):
		}
	}
}

// claim claims a file that stands for the record, which is replaced with each
// change.
func claim(dir *state.Dir, name string) (*state.Claim, error) {
	c, err := dir.Claim(name)
	if !errors.Is(err, unix.ENOENT) {
		return c, err
	}
	if err := dir.Create(name, nil); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return dir.Claim(name)
}

// Unshared is Open for a namespace that nobody else can reach yet: there is
// nothing to claim, and no record.
func Unshared(dir *state.Dir, target nsenter.Identity) *File {
	return &File{dir: dir, target: target}
}

// Close gives the record free.
func (f *File) Close() {
	if f.claim != nil {
		f.claim.Release()
	}
}

// Read returns the record, an empty one if there is none. The error matches
// ErrDamaged if what is there is no record, and then an empty one is returned
// with it.
func (f *File) Read() (*Record, error) { return Read(f.dir, f.target) }

// Read is File.Read for a caller who does not claim the record, and must not
// change anything by it.
func Read(dir *state.Dir, target nsenter.Identity) (*Record, error) {
	empty := &Record{Target: target}
	name := fileName(target)
	text, err := dir.ReadLarge(name)
	if errors.Is(err, unix.ENOENT) {
		return empty, nil
	}
	if errors.Is(err, state.ErrUntrusted) || errors.Is(err, unix.EFBIG) {
		return empty, fmt.Errorf("record: %w: %w: look at it, then remove it", ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r, err := parse(text)
	if err != nil {
		return empty, fmt.Errorf("record %s: %w: look at it, then remove it", dir.Join(name), err)
	}
	if !r.Target.Same(target) {
		return empty, nil // of a namespace that had the inode number before
	}
	r.Target = target // with the tasks that are in it now
	return r, nil
}

// Write replaces the record: another process sees the old one or the new.
func (f *File) Write(r *Record) error {
	if err := f.dir.ReplaceLarge(fileName(f.target), r.encode()); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Note writes down a checkpoint that was taken of the namespace itself, and
// whether its container went on after it.
func Note(ctx context.Context, dir *state.Dir, target nsenter.Identity, taken Taken) error {
	f, err := Open(ctx, dir, target)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := f.Read()
	if err != nil {
		return err
	}
	r.note(taken)
	return f.Write(r)
}
