package infront

import (
	"errors"
	"fmt"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// ErrNotCarried says that a namespace holds objects of a kind that ipc-cr does not
// carry.
var ErrNotCarried = errors.New("objects that ipc-cr does not carry")

// errNothingLost says that criu leaves the tasks' namespace alone wherever it runs,
// or where it was started: the ordinary way is as quick.
var errNothingLost = errors.New("CRIU leaves that namespace alone")

// judge opens the IPC namespace of a tree of tasks if CRIU may sit beside it.
// The error says why not.
func judge(pid int) (*nsenter.Namespace, error) {
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		return nil, err
	}
	if err := suits(ns, pid); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

func suits(ns *nsenter.Namespace, pid int) error {
	here, err := nsenter.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	same, err := ns.Same(here)
	switch {
	case err != nil:
		return err
	case ns.IsHost():
		return fmt.Errorf("process %d is in %s: %w", pid, ns, errNothingLost)
	case same:
		return fmt.Errorf("process %d is in the namespace that criu was started in, %s: %w", pid, ns, errNothingLost)
	}
	if err := Carried(ns); err != nil {
		return err
	}
	return unmapped(pid)
}

// Carried reports whether ipc-cr carries everything that is in a namespace: it is
// ErrNotCarried where there are semaphores or shared memory segments. With those a
// dump beside the namespace would lose something. POSIX message queues are lost
// whichever way it goes, and are none of its reasons. It needs the right to enter
// the namespace (setns(2)).
func Carried(ns *nsenter.Namespace) error {
	var counts kernel.Counts
	err := linux.NewSpace(ns, nil).Run(func(k kernel.Kernel) (err error) {
		counts, err = k.OtherKinds()
		return err
	})
	if err != nil {
		return fmt.Errorf("look into %s: %w", ns, err)
	}
	if counts.Semaphores > 0 || counts.SharedMemory > 0 {
		return fmt.Errorf("%s holds %d semaphore sets and %d shared memory segments: %w",
			ns, counts.Semaphores, counts.SharedMemory, ErrNotCarried)
	}
	return nil
}
