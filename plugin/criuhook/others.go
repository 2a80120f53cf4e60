package criuhook

import (
	"strings"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// CRIU does not know POSIX message queues. Where the container has their file system
// mounted, or a queue open, its dump fails; else they are lost, and nobody would be
// told. They are counted while the container still runs.

// warnPOSIX warns of the POSIX message queues of a namespace. Those of the host's are
// everybody's, and may be there after a restore.
func (r *run) warnPOSIX(others plugin.Others, host bool) {
	what, where := count(others.POSIXQueues, "POSIX message queue"), "in the namespace"
	lost := ": the restored container has none"
	if host {
		where, lost = "in the host's IPC namespace, where the container is", ""
	}
	switch {
	case others.Unknown != nil:
		r.warn("whether there are POSIX message queues %s, which neither CRIU nor ipc-cr saves, is not known: %v", where, others.Unknown)
	case others.POSIXQueues > 0:
		r.warn("%s %s, which neither CRIU nor ipc-cr saves%s", what, where, lost)
	}
}

// warnPod warns of objects that CRIU restores into a namespace once: where they are
// by then, it fails over those with a key and over private ones with different words
// (criu/ipc_ns.c, which begins with shared memory).
func (r *run) warnPod(ns *nsenter.Namespace, others plugin.Others, neighbours int) {
	var held []string
	set := "shm"
	if others.SharedMemory > 0 {
		held = append(held, count(others.SharedMemory, "shared memory segment"))
	} else {
		set = "sem"
	}
	if others.Semaphores > 0 {
		held = append(held, count(others.Semaphores, "semaphore set"))
	}
	r.warn("%s in %s, which is shared with %s: CRIU makes them for the first container that is restored, and cannot restore a second one into the namespace (Failed to create %s set, or Failed to restore %s id)",
		strings.Join(held, " and "), ns, count(neighbours, "neighbour"), set, set)
}
