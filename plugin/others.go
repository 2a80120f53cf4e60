package plugin

import (
	"fmt"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// Others counts the objects of a namespace that no kind carries.
type Others struct {
	Semaphores   int // System V semaphore sets
	SharedMemory int // System V shared memory segments
	// POSIXQueues counts the POSIX message queues that have a name (mq_overview(7)).
	// One that was unlinked and is still open is not seen.
	POSIXQueues int
	// Unknown says why POSIXQueues is not known, and then 0: nil where it is.
	Unknown error
}

// SystemV reports whether there are semaphore sets or shared memory segments, which
// CRIU carries.
func (o Others) SystemV() bool { return o.Semaphores > 0 || o.SharedMemory > 0 }

// CountAll counts the objects of the kinds as Count does, and in the same visit to
// the namespace what no kind carries. It needs CAP_SYS_ADMIN over the namespace, and
// no permission on any object; nothing in it changes. It takes longer than Count, by
// some 40 us, and is better not called while tasks are frozen.
func CountAll(ns *nsenter.Namespace, kinds []Kind) (total Size, others Others, err error) {
	space := linux.NewSpace(ns, nil)
	err = space.Run(func(k kernel.Kernel) error {
		if total, err = count(space, k, kinds); err != nil {
			return err
		}
		counts, err := k.OtherKinds()
		if err != nil {
			return err
		}
		others = Others{Semaphores: counts.Semaphores, SharedMemory: counts.SharedMemory}
		others.POSIXQueues, others.Unknown = k.POSIXQueues()
		return nil
	})
	return total, others, err
}

// others warns of System V objects that no kind carries.
func others(k kernel.Kernel) ([]string, error) {
	counts, err := k.OtherKinds()
	if err != nil {
		return nil, err
	}
	var warnings []string
	if n := counts.Semaphores; n > 0 {
		warnings = append(warnings, fmt.Sprintf("semaphore sets are not saved: %d in the namespace", n))
	}
	if n := counts.SharedMemory; n > 0 {
		warnings = append(warnings, fmt.Sprintf("shared memory segments are not saved: %d in the namespace", n))
	}
	return warnings, nil
}

// posix warns of POSIX message queues. It is asked before any task is stopped. That
// they cannot be counted is no reason to give up a checkpoint, nor for a warning each
// time: the caller may lack CAP_SYS_ADMIN by choice, and most namespaces have none.
func posix(k kernel.Kernel) (warnings, unknown []string) {
	n, err := k.POSIXQueues()
	switch {
	case err != nil:
		return nil, []string{fmt.Sprintf("whether there are POSIX message queues, which are not saved: %v", err)}
	case n > 0:
		return []string{fmt.Sprintf("POSIX message queues are not saved: %d in the namespace, of which a restore makes none", n)}, nil
	}
	return nil, nil
}
