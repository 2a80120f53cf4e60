package e2e_test

import (
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// saysOnce wants one line of the logs to say it, however often CRIU called the hook.
func saysOnce(t testing.TB, s subject, what string) {
	t.Helper()
	if n := strings.Count(s.logs(), what); n != 1 {
		t.Errorf("%d lines say %q, want 1:\n%s", n, what, s.logs())
	}
}

const onePOSIX = "ipc-cr: pre-dump: warning: 1 POSIX message queue in the namespace, which neither CRIU nor ipc-cr saves: the restored container has none\n"

// A container that has no mqueue file system mounted loses its POSIX message queues
// without a word of CRIU's. Should CRIU refuse or carry them one day, the warning is
// to be told.
func TestHookPOSIXQueues(t *testing.T) {
	for name, through := range map[string]func(testing.TB) []string{
		"the ordinary way": func(testing.TB) []string { return nil },
		"beside":           allFronts[1].through,
	} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, byCRIU.needs...)
			leavesNothing(t)
			c := newCrew(t, talking...)
			s := byCRIU.start(t, c, hookConf(t))
			goThrough(s, through(t))
			c.works(t)
			nstest.POSIXQueue(t, nsOf(t, s), "lost", false)
			mustSave(t, s)
			saysOnce(t, s, onePOSIX)
			mustLoad(t, s)
			nstest.POSIXQueue(t, nsOf(t, s), "lost", false) // which it could not make if it were there
			c.works(t)
		})
	}
}

// With the file system mounted CRIU fails, and says less than the line before.
func TestHookPOSIXQueuesMounted(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	c := newCrew(t, talking...)
	s := startByRunc(t, c, hookConf(t)) // runc's own proposal mounts it
	c.works(t)
	nstest.POSIXQueue(t, nsOf(t, s), "in the way", false)
	if err := s.save(t); err == nil {
		t.Fatal("CRIU dumps this now")
	}
	saysOnce(t, s, onePOSIX)
	if !strings.Contains(s.logs(), "mqueue isn't empty") {
		t.Errorf("CRIU fails for another reason:\n%s", s.logs())
	}
	c.works(t)
}

// CRIU restores semaphores and shared memory once into a namespace: of a pod with
// either, the second container does not come back. That is said at its checkpoint.
// Should it come back one day, the warning is to go.
func TestHookPodWithOtherKinds(t *testing.T) {
	for name, c := range map[string]struct {
		call, key, size uintptr
		what, why       string
	}{
		"semaphores with a key":    {unix.SYS_SEMGET, 0x5151, 1, "1 semaphore set", "Failed to create sem set: File exists"},
		"private semaphores":       {unix.SYS_SEMGET, 0, 1, "1 semaphore set", "Failed to restore sem id"},
		"shared memory with a key": {unix.SYS_SHMGET, 0x5151, 4096, "1 shared memory segment", "Failed to create shm set: File exists"},
		"private shared memory":    {unix.SYS_SHMGET, 0, 4096, "1 shared memory segment", "Failed to restore shm id"},
	} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			p := newRuncPod(t, hookConf(t), oneEnd, otherEnd)
			work(t, p.crews...)
			inNamespace(t, p.ns, func() error {
				_, err := syscallMsg(c.call, c.key, c.size, unix.IPC_CREAT|0o600, 0, 0)
				return err
			})
			for _, s := range p.members {
				mustSave(t, s, "--leave-running") // the other one is its neighbour
				saysOnce(t, s, "ipc-cr: pre-dump: warning: "+c.what+" in "+p.ns.String()+", which is shared with ")
			}
			for _, s := range p.members {
				mustSave(t, s)
			}
			p.moveTo(t, nstest.Fresh(t))
			mustLoad(t, p.members[0])
			if err := p.members[1].load(t); err == nil {
				t.Fatal("CRIU restores the second container of a pod now")
			}
			if log := without(p.members[1].logs(), "warning"); !strings.Contains(log, c.why) {
				t.Errorf("CRIU fails for another reason:\n%s", log)
			}
		})
	}
}
