package criuhook

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"

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
	// runs as `criu swrk`, which is how go-criu starts it.
	CRIU int
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

// PostResume does nothing.
func (n *Notify) PostResume() error { return nil }

func (n *Notify) event(action string) error {
	pid := n.CRIU
	if pid == 0 {
		var err error
		if pid, err = swrkChild(os.Getpid()); err != nil {
			return fmt.Errorf("%s: %w", action, err)
		}
	}
	criu, err := state.Lookup(pid)
	if err != nil {
		return fmt.Errorf("%s: CRIU, process %d: %w", action, pid, err)
	}
	ctx := n.Context
	if ctx == nil {
		ctx = context.Background()
	}
	return n.Run(ctx, Event{Action: action, ImagesDir: n.ImagesDir, InitPID: n.PID, CRIU: criu})
}

// swrkChild finds the child of a process that was started as `criu swrk FD`,
// perhaps through a wrapper.
func swrkChild(parent int) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	found := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !isSwrk(pid, parent) {
			continue
		}
		if found != 0 {
			return 0, fmt.Errorf("processes %d and %d both run as criu swrk: say which in CRIU", found, pid)
		}
		found = pid
	}
	if found == 0 {
		return 0, fmt.Errorf("process %d has no child that runs as criu swrk", parent)
	}
	return found, nil
}

func isSwrk(pid, parent int) bool {
	above, err := parentOf(pid)
	if err != nil || above != parent {
		return false
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	args := bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})
	if err != nil || len(args) < 3 {
		return false
	}
	last := args[len(args)-2:]
	_, number := strconv.Atoi(string(last[1]))
	return string(last[0]) == "swrk" && number == nil
}
