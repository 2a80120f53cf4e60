package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Checkpointed is a checkpoint that was taken of a namespace, for
// NoteCheckpoint.
type Checkpointed struct {
	Namespace   images.Source // as the JSON file has it
	Boottime    int64         // CLOCK_BOOTTIME in ns, as the JSON file has it
	Created     time.Time
	Dir         string // images directory, for messages
	LeftRunning bool   // the container went on after it
}

// NoteCheckpoint notes in the record of a namespace what became of a container
// after its checkpoint. A restore in place with Adopt asks for it: without a note,
// the container counts as stopped. It needs the state directory (/run/ipc-cr) and
// waits up to a minute for a restore that is under way; a damaged record is
// an error.
func NoteCheckpoint(ctx context.Context, c Checkpointed) error {
	dir, err := state.Default()
	if err != nil {
		return fmt.Errorf("note the checkpoint in %s: %w", c.Dir, err)
	}
	return errors.Join(noteCheckpoint(ctx, dir, c), dir.Close())
}

func noteCheckpoint(ctx context.Context, dir *state.Dir, c Checkpointed) error {
	if c.Boottime <= 0 || c.Namespace.BootID == "" {
		return fmt.Errorf("note the checkpoint in %s: without a time or a namespace: %w", c.Dir, unix.EINVAL)
	}
	err := record.Note(ctx, dir, identity(c.Namespace), record.Taken{
		Snapshot:    record.Snapshot{Boottime: c.Boottime, Created: c.Created, Dir: c.Dir},
		LeftRunning: c.LeftRunning,
	})
	if err != nil {
		return fmt.Errorf("note the checkpoint in %s: %w", c.Dir, err)
	}
	return nil
}

// Restored is a restore of a checkpoint into a namespace, for NoteRan.
type Restored struct {
	Target   images.Source       // the namespace
	From     images.Source       // that was checkpointed, as the JSON file claims
	Boottime int64               // of the checkpoint; 0 if the JSON file does not tell it
	Second   int64               // in which it was complete, as the kernel stamps objects
	Uptime   int64               // CLOCK_BOOTTIME in ns at that moment
	Absent   map[string][]string // the image's objects that are not there, by their kind
}

// NoteRan notes in the record of a namespace that the container for which a
// checkpoint was restored came to run. From then on, a restore of the same
// checkpoint with Adopt obeys RestoreOptions.Again. It needs what NoteCheckpoint
// needs.
func NoteRan(ctx context.Context, r Restored) error {
	dir, err := state.Default()
	if err != nil {
		return fmt.Errorf("note that the container ran: %w", err)
	}
	return errors.Join(noteRan(ctx, dir, r), dir.Close())
}

func noteRan(ctx context.Context, dir *state.Dir, r Restored) error {
	if r.Boottime <= 0 || r.Target.BootID == "" || r.From.BootID == "" {
		return fmt.Errorf("note that the container ran: without a time or a namespace: %w", unix.EINVAL)
	}
	ran := record.Ran{Boottime: r.Boottime, Second: r.Second, Uptime: r.Uptime, Absent: r.Absent}
	if err := record.NoteRan(ctx, dir, identity(r.Target), identity(r.From), ran); err != nil {
		return fmt.Errorf("note that the container ran: %w", err)
	}
	return nil
}

// restored is what NoteRan is to be told of a restore that is complete.
func (r *restore) restored() (*Restored, error) {
	if r.past == nil {
		return nil, nil
	}
	second, err := stampSecond()
	if err != nil {
		return nil, err
	}
	uptime, err := boottime()
	if err != nil {
		return nil, err
	}
	done := &Restored{
		Target: r.source, From: sourceFrom(r.past.from), Boottime: r.past.now.Boottime,
		Second: second, Uptime: uptime, Absent: map[string][]string{},
	}
	for i, plan := range r.plans {
		if absent := plan.Absent(); len(absent) > 0 {
			done.Absent[r.opt.Kinds[i].Name()] = absent
		}
	}
	return done, nil
}

func sourceFrom(id nsenter.Identity) images.Source {
	s := images.Source{BootID: id.BootID, ID: id.ID, Inode: id.Inode}
	for _, task := range id.Tasks {
		s.Tasks = append(s.Tasks, images.SourceTask{PID: task.PID, Start: task.Start})
	}
	return s
}
