package criuhook

import (
	"context"
	"fmt"
	"os"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Notify answers the notifications of go-criu: it has the methods of its
// interface criu.Notify, and is to be embedded, or called, by a program that has
// notifications of its own to answer. One value is for one dump or restore.
//
//	hook := &criuhook.Notify{Hook: h, ImagesDir: dir, PID: pid}
//	err := criu.MakeCriu().Dump(opts, hook)
//
// Methods at which ipc-cr has nothing to do return nil.
type Notify struct {
	*Hook
	Context   context.Context // nil for the background
	ImagesDir string          // as opts.ImagesDirFd names it: its path
	PID       int             // the process that is dumped; on restore CRIU tells it
	// CRIU is the pid of the criu process, 0 for the only child of this one that
	// has ImagesDir open, which it is where go-criu starts it.
	CRIU int

	criu state.Process // which that is, from the first notification on
}

// PreDump stops the neighbours of a shared namespace.
func (n *Notify) PreDump() error { return n.event(PreDump) }

// PostDump completes the dump.
func (n *Notify) PostDump() error { return n.event(PostDump) }

// PreRestore sets the queues' images aside.
func (n *Notify) PreRestore() error { return n.event(PreRestore) }

// SetupNamespaces keeps the pid of the container's first process.
func (n *Notify) SetupNamespaces(pid int32) error {
	n.PID = int(pid)
	return nil
}

// PostSetupNamespaces restores the queues.
func (n *Notify) PostSetupNamespaces() error { return n.event(PostSetupNamespaces) }

// PostRestore does nothing.
func (n *Notify) PostRestore(int32) error { return nil }

// NetworkLock does nothing.
func (n *Notify) NetworkLock() error { return nil }

// NetworkUnlock does nothing.
func (n *Notify) NetworkUnlock() error { return nil }

// PostResume notes that the container runs. Where that fails it is in the log of ipc-cr
// (ReadLog), and no error: go-criu would say that the restore failed, and it did not.
func (n *Notify) PostResume() error {
	_ = n.event(PostResume)
	return nil
}

func (n *Notify) event(action string) error {
	if err := n.findCRIU(); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	ctx := n.Context
	if ctx == nil {
		ctx = context.Background()
	}
	return n.Run(ctx, Event{Action: action, ImagesDir: n.ImagesDir, InitPID: n.PID, CRIU: n.criu})
}

// findCRIU looks for CRIU once: later there are tasks that are copies of it, which
// become the restored ones, and with RstSibling they are its siblings.
func (n *Notify) findCRIU() (err error) {
	if n.criu.PID != 0 {
		return nil
	}
	pid := n.CRIU
	if pid == 0 {
		if pid, err = childWithOpen(os.Getpid(), n.ImagesDir); err != nil {
			return fmt.Errorf("look for CRIU: %w", err)
		}
	}
	if n.criu, err = state.Lookup(pid); err != nil {
		return fmt.Errorf("CRIU, process %d: %w", pid, err)
	}
	return nil
}
