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

// File is the record of one namespace, locked: nobody else changes it, or
// restores into the namespace by it, until Close or this process's death. The
// lock is one of its own because the record is replaced with each change.
type File struct {
	dir    *state.Dir
	target nsenter.Identity
	lock   *state.Lock // nil if there is nobody to lock it against
}

// turnTimeout is how long Open waits for another process.
const turnTimeout = time.Minute

// Open locks the record of a namespace, whether there is one or not. It waits
// up to a minute for another process that has it, then it is state.ErrBusy, as it is
// with ctx's cause where that ends the wait. dir must stay open until Close.
func Open(ctx context.Context, dir *state.Dir, target nsenter.Identity) (*File, error) {
	return open(ctx, dir, target, turnTimeout)
}

func open(ctx context.Context, dir *state.Dir, target nsenter.Identity, patience time.Duration) (*File, error) {
	lock, err := dir.AwaitLock(ctx, stem(target), "the record of restores into the namespace", patience)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return &File{dir: dir, target: target, lock: lock}, nil
}

// Unshared is Open for a namespace that nobody else can reach yet: there is
// nothing to claim, and no record.
func Unshared(dir *state.Dir, target nsenter.Identity) *File {
	return &File{dir: dir, target: target}
}

// Close gives the record free.
func (f *File) Close() error { return f.lock.Release() }

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
	return change(ctx, dir, target, func(r *Record) { r.note(taken) })
}

// NoteRan writes down that a container came to run after a restore from a
// namespace.
func NoteRan(ctx context.Context, dir *state.Dir, target, from nsenter.Identity, ran Ran) error {
	return change(ctx, dir, target, func(r *Record) { r.AddSource(from).NoteRan(ran) })
}

// change rewrites a record.
func change(ctx context.Context, dir *state.Dir, target nsenter.Identity, how func(*Record)) error {
	f, err := Open(ctx, dir, target)
	if err != nil {
		return err
	}
	r, err := f.Read()
	if err == nil {
		how(r)
		err = f.Write(r)
	}
	return errors.Join(err, f.Close())
}
