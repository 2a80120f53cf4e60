package e2e_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// The queues of the host that are selected come back as they were, for a
// container that works on. The others are nobody's business, however busy.
func TestHookHost(t *testing.T) {
	s := startInHostIPC(t, hookConf(t))
	mine, theirs, other, busy := hostKey(0), hostKey(1), hostKey(2), hostKey(3)
	settings := fmt.Sprintf("host_queues = [%q, %q, %q]\n",
		fmt.Sprintf("%#x:0", mine), fmt.Sprintf("%d:1000", theirs), fmt.Sprintf("%#x:4242", other))
	id := makeQueueAs(t, s.ns, 1001, theirs, samples...)
	inNamespace(t, s.ns, func() error {
		return changeQueue(id, func(d *msqid) {
			d.setInt(atUID, 1000)
			d.setInt(atMode, 0o640)
			d.setInt(atQbytes, 9000)
		})
	})
	makeQueue(t, s.ns, other, message{5, "stays"})
	was, bounds, stays := []queue{hostQueue(t, s.ns, mine), hostQueue(t, s.ns, theirs)}, limits(t, s.ns), hostQueue(t, s.ns, other)
	stop := keepBusy(t, s.ns, busy, 1)
	s.mustSaveWith(t, settings)
	compareQueues(t, byID(was), byID(s.saved(t)))
	stop()
	s.says(t, "dump.log", "warning: the container is in the host's IPC namespace", "2 queues, ")
	removeHostQueue(t, s.ns, mine)
	removeHostQueue(t, s.ns, theirs)
	s.mustLoadWith(t, settings)
	compareQueues(t, was, []queue{hostQueue(t, s.ns, mine), hostQueue(t, s.ns, theirs)})
	compareQueues(t, []queue{stays}, []queue{hostQueue(t, s.ns, other)})
	if got := limits(t, s.ns); got != bounds {
		t.Errorf("msgmax, msgmnb, msgmni: %v, before %v", got, bounds)
	}
	s.says(t, "restore.log", "no queue is restored but those that host_queues selects", ": 2 made")
	s.crew.works(t)
}

// keepBusy makes a queue with messages that go around in it until the function
// it returns is called. There are more threads than processors: one alone may have
// none for as long as a copy takes, and the copy is right then. They allocate
// nothing: a collection of garbage would stop all of them at once.
func keepBusy(t testing.TB, ns *nsenter.Namespace, key, messages int) (stop func()) {
	t.Helper()
	id := makeQueue(t, ns, key, slices.Repeat([]message{{1, "x"}}, messages)...)
	var over atomic.Bool
	movers, ended := min(2*runtime.NumCPU(), messages), make(chan error)
	for range movers {
		go func() {
			ended <- ns.Run(func() error {
				var buf [16]byte
				for !over.Load() {
					size, _, err := unix.RawSyscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf)), 8, 0, unix.IPC_NOWAIT, 0)
					if err == 0 {
						_, _, err = unix.RawSyscall6(unix.SYS_MSGSND, uintptr(id), uintptr(unsafe.Pointer(&buf)), size, unix.IPC_NOWAIT, 0, 0)
					}
					if err != 0 {
						return err
					}
				}
				return nil
			})
		}()
	}
	return func() {
		over.Store(true)
		for range movers {
			if err := <-ended; err != nil {
				t.Errorf("the busy queue: %v", err)
			}
		}
	}
}

// A queue that is still there stays as it is, equal or used by others since.
func TestHookHostStays(t *testing.T) {
	s := startInHostIPC(t, hookConf(t))
	used := hostKey(1)
	settings := selecting(hostKey(0), used)
	id := makeQueue(t, s.ns, used, samples...)
	s.mustSaveWith(t, settings)
	inNamespace(t, s.ns, func() error { return receive(id) })
	was := ourHostQueues(t, s.ns)
	s.mustLoadWith(t, settings)
	compareQueues(t, was, ourHostQueues(t, s.ns))
	s.says(t, "1 equal already, 1 adopted", fmt.Sprintf("(key %#x) adopted: differs from the image in number of messages", used))
	s.crew.works(t)
}

// A selected queue that is never quiet fails the checkpoint, and the container
// goes on.
func TestHookHostBusy(t *testing.T) {
	s := startInHostIPC(t, hookConf(t))
	settings := selecting(hostKey(0), hostKey(1))
	stop := keepBusy(t, s.ns, hostKey(1), 4000)
	err := s.saveWith(t, settings)
	stop()
	if err == nil {
		t.Fatal("the checkpoint succeeds")
	}
	s.says(t, fmt.Sprintf("(key %#x)", hostKey(1)), "5 times: stop its users")
	if got := s.saved(t); got != nil {
		t.Errorf("saved %d queues", len(got))
	}
	s.crew.works(t)
	s.mustSaveWith(t, settings)
	removeHostQueue(t, s.ns, hostKey(0))
	s.mustLoadWith(t, settings)
	s.crew.works(t)
}

// Without a word of the administrator's nothing is saved, and an older dump's
// queues do not stay in the directory.
func TestHookHostNotSelected(t *testing.T) {
	s := startInHostIPC(t, hookConf(t))
	s.mustSaveWith(t, selecting(hostKey(0)), "--leave-running")
	if got := s.saved(t); len(got) != 1 {
		t.Fatalf("saved %d queues", len(got))
	}
	s.mustSaveWith(t, "")
	s.says(t, "warning: the container is in the host's IPC namespace: no queue is saved (host_queues in")
	if got := s.saved(t); got != nil {
		t.Errorf("saved %d queues", len(got))
	}
	was := ourHostQueues(t, s.ns)
	s.mustLoadWith(t, "")
	compareQueues(t, was, ourHostQueues(t, s.ns))
	s.crew.works(t)
}

// What is not selected at the restore is not made, whatever the image holds.
func TestHookHostDeselected(t *testing.T) {
	for name, settings := range map[string]string{"some": selecting(hostKey(0)), "all": ""} {
		t.Run(name, func(t *testing.T) {
			s := startInHostIPC(t, hookConf(t))
			makeQueue(t, s.ns, hostKey(1), samples...)
			was := ourHostQueues(t, s.ns)
			s.mustSaveWith(t, selecting(hostKey(0), hostKey(1)))
			removeHostQueue(t, s.ns, hostKey(0))
			removeHostQueue(t, s.ns, hostKey(1))
			s.mustLoadWith(t, settings)
			want := slices.DeleteFunc(was, func(q queue) bool { return settings == "" || q.Key != hostKey(0) })
			if got := ourHostQueues(t, s.ns); len(got) > 0 || len(want) > 0 {
				compareQueues(t, want, got)
			}
			s.says(t, map[string]string{"some": fmt.Sprintf("(key %#x) first: host_queues in", hostKey(1)), "all": "no queue of the images is restored"}[name])
		})
	}
}

// A container that was left running went on with its queues: what it did since is
// not undone.
func TestHookHostLeftRunning(t *testing.T) {
	s := startInHostIPC(t, hookConf(t))
	settings := selecting(hostKey(0))
	s.mustSaveWith(t, settings, "--leave-running")
	withoutGuard(t)
	removeHostQueue(t, s.ns, hostKey(0))
	s.discard(t)
	if s.loadWith(t, settings) == nil {
		t.Error("the restore succeeds")
	}
	s.says(t, "is not there any more since", "its container went on")
	if got := ourHostQueues(t, s.ns); len(got) > 0 {
		t.Errorf("made %d queues", len(got))
	}
}

// Another queue in the way refuses the restore, with nothing changed.
func TestHookHostConflict(t *testing.T) {
	s := startInHostIPC(t, hookConf(t))
	settings := selecting(hostKey(0))
	s.mustSaveWith(t, settings)
	was := hostQueue(t, s.ns, hostKey(0))
	removeHostQueue(t, s.ns, hostKey(0))
	makeQueueAs(t, s.ns, 1000, hostKey(0))
	taken := ourHostQueues(t, s.ns)
	if s.loadWith(t, settings) == nil {
		t.Fatal("the restore succeeds")
	}
	s.says(t, fmt.Sprintf("queue %d (key %#x): ", was.ID, hostKey(0)), "remove what is in the way (ipcrm -q)")
	failedRestoreEnds(t, s.runcSubject)
	compareQueues(t, taken, ourHostQueues(t, s.ns))
	removeHostQueue(t, s.ns, hostKey(0))
	s.mustLoadWith(t, settings)
	compareQueues(t, []queue{was}, ourHostQueues(t, s.ns))
	s.crew.works(t)
}

// Without the hook a container in the host's IPC namespace gets no queue saved.
func TestNoHookHost(t *testing.T) {
	s := startInHostIPC(t, scriptConf(t))
	s.mustSaveWith(t, selecting(hostKey(0)))
	removeHostQueue(t, s.ns, hostKey(0))
	s.mustLoadWith(t, selecting(hostKey(0)))
	if got := ourHostQueues(t, s.ns); len(got) > 0 {
		t.Errorf("CRIU restores %d queues of the host's now", len(got))
	}
}
