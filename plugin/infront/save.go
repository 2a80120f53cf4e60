package infront

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Beside tells, in an action script, whether the criu that calls it is one that
// Main has put beside the IPC namespace of the tasks: its configuration file is
// in the state directory, and it shares the namespace with the root task. Tasks
// that share criu's namespace for another reason, as with an IPC namespace that
// container and runtime have in common, give false. criu and init are pids;
// CRTOOLS_INIT_PID is the latter's. It needs the right to look at both.
func Beside(criu, init int) (bool, error) {
	placed, err := placed(criu)
	if err != nil || !placed {
		return false, err
	}
	theirs, err := nsenter.OpenPID(init)
	if err != nil {
		return false, err
	}
	defer theirs.Close()
	its, err := nsenter.OpenPID(criu)
	if err != nil {
		return false, err
	}
	defer its.Close()
	return its.Same(theirs)
}

// placed reports whether Main has become the process pid.
func placed(pid int) (bool, error) {
	dir, err := state.Existing()
	if errors.Is(err, state.ErrNowhere) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	criu, err := state.Lookup(pid)
	if err != nil {
		return false, fmt.Errorf("criu, process %d: %w", pid, err)
	}
	_, err = dir.Read(beside.Name(criu))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Prepare makes the dump in an images directory, taken beside the namespace, one
// of tasks in a namespace of their own: the inventory gives criu's namespace
// another number. What the directory holds of the namespace's number from an older
// dump is no checkpoint any more. It returns the number under which the images must
// be written next; until they are, criu refuses to restore the directory ("Failed to
// read IPC namespace variables"), and never puts its tasks into the namespace of the criu
// that restores.
//
// It is for post-dump, when criu has written its files. A second call does nothing
// more. It needs the right to write to the directory.
func Prepare(path string) (n uint32, err error) {
	dir, err := images.OpenDir(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := dir.Lock(); err != nil {
		return 0, err
	}
	if err := dir.Sweep(); err != nil {
		return 0, err
	}
	if n, err = dir.TaskIPCNumber(); err != nil {
		return 0, err
	}
	if err := dir.Void(n); err != nil {
		return 0, err
	}
	return n, part(dir, n)
}

// part gives criu's namespace an unused number where it has the tasks'.
func part(dir *images.Dir, tasks uint32) error {
	criu, err := dir.InventoryIPCNumber()
	if err != nil || criu != tasks {
		return err
	}
	unused, err := dir.UnusedIPCNumber()
	if err != nil {
		return err
	}
	return dir.SetInventoryIPCNumber(unused)
}

// Save completes a dump taken beside the namespace, at post-dump: Prepare, then
// plugin.Checkpoint with opt, whose Number and Force it sets. A namespace that
// meanwhile holds what ipc-cr does not carry is refused (ErrNotCarried); the next
// dump of it will go the ordinary way. After an error the directory is none that
// criu restores, and the script must fail the dump.
//
// It needs what plugin.Checkpoint needs.
func Save(ctx context.Context, opt plugin.CheckpointOptions) (*plugin.CheckpointReport, error) {
	n, err := Prepare(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("complete the dump in %s: %w", opt.Dir, err)
	}
	if err := Carried(opt.Namespace); err != nil {
		return nil, err
	}
	opt.Number, opt.Force = n, true
	report, err := plugin.Checkpoint(ctx, opt)
	if err != nil {
		return nil, err
	}
	// Once more: tasks outside the container's tree may have been at work.
	if err := Carried(opt.Namespace); err != nil {
		return nil, errors.Join(err, void(opt.Dir, n))
	}
	return report, nil
}

func void(path string, n uint32) error {
	dir, err := images.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Lock(), dir.Void(n), dir.Close())
}
