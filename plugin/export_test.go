package plugin

import (
	"context"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// WithState returns options whose state directory is at path, or the error.
func (o RestoreOptions) WithState(path string, err error) RestoreOptions {
	o.openState = func() (*state.Dir, error) {
		if err != nil {
			return nil, err
		}
		return state.Open(path)
	}
	return o
}

// WithIdentity returns options with another way to identify the namespace.
func (o RestoreOptions) WithIdentity(identify func(*nsenter.Namespace) (nsenter.Identity, error)) RestoreOptions {
	o.identify = identify
	return o
}

// NoteCheckpointIn is NoteCheckpoint with the state directory at path.
func NoteCheckpointIn(ctx context.Context, path string, c Checkpointed) error {
	dir, err := state.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return noteCheckpoint(ctx, dir, c)
}

// NoteRanIn is NoteRan with the state directory at path.
func NoteRanIn(ctx context.Context, path string, r Restored) error {
	dir, err := state.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return noteRan(ctx, dir, r)
}

// WithFrozenLimit returns options with another time for which tasks are frozen at most.
func (o CheckpointOptions) WithFrozenLimit(limit time.Duration) CheckpointOptions {
	o.frozen = limit
	return o
}

// WithFrozenLimit returns options with another time for which tasks are frozen at most.
func (o RestoreOptions) WithFrozenLimit(limit time.Duration) RestoreOptions {
	o.frozen = limit
	return o
}
