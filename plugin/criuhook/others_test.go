package criuhook_test

import (
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// POSIX message queues are lost, and nobody else says so: in one line, while the
// container still runs, whether there is anything that is carried or not.
func TestPOSIXQueuesAreNamed(t *testing.T) {
	for _, queues := range []int{0, 2} {
		r := newRig(t)
		fill(t, r.ns, queues, 1)
		nstest.POSIXQueue(t, r.ns, "unlinked", true)
		nstest.POSIXQueue(t, r.ns, "first", false)
		r.wantSaid(criuhook.PreDump, "ipc-cr: pre-dump: warning: 1 POSIX message queue in the namespace, which neither CRIU nor ipc-cr saves: the restored container has none\n")
		r.dump(1)
		if said := r.must(criuhook.PostDump); strings.Contains(said, "POSIX") {
			t.Errorf("post-dump says %q", said)
		}
	}
}

func (r *rig) wantSaid(action, want string) {
	r.t.Helper()
	if said := r.must(action); said != want {
		r.t.Errorf("%s says %q, want %q", action, said, want)
	}
}

// CRIU restores semaphore sets and shared memory segments, but only into a namespace
// that has none of them yet: a container of a pod is the only one to come back.
func TestPodWithSemaphores(t *testing.T) {
	const lost = ": CRIU makes them for the first container that is restored, and cannot restore a second one into the namespace (Failed to create %s set, or Failed to restore %s id)\n"
	for _, c := range []struct {
		sets, segments int
		neighbours     int
		queues         int
		what, with     string
		set            string // none: nothing is said
	}{
		{sets: 1, segments: 1, neighbours: 0},
		{sets: 2, neighbours: 1, what: "2 semaphore sets", with: "1 neighbour", set: "sem"},
		{segments: 1, neighbours: 2, what: "1 shared memory segment", with: "2 neighbours", set: "shm"},
		{sets: 1, segments: 2, neighbours: 1, queues: 1, what: "2 shared memory segments and 1 semaphore set", with: "1 neighbour", set: "shm"},
	} {
		r := newRig(t)
		for range c.neighbours {
			nstest.Start(t, r.ns, idle)
		}
		fill(t, r.ns, c.queues, 1)
		makeOthers(t, r.ns, c.sets, c.segments)
		want := ""
		if c.set != "" {
			want = "ipc-cr: pre-dump: warning: " + c.what + " in " + r.ns.String() + ", which is shared with " + c.with + strings.ReplaceAll(lost, "%s", c.set)
		}
		said := r.must(criuhook.PreDump)
		if c.queues > 0 { // for which neighbours are stopped
			said = stopped.ReplaceAllString(said, "")
		}
		if said != want {
			t.Errorf("%+v: pre-dump says %q, want %q", c, said, want)
		}
	}
}

var stopped = regexp.MustCompile(`ipc-cr: pre-dump: \d+ tasks? of neighbours stopped\n`)

func makeOthers(t *testing.T, ns *nsenter.Namespace, sets, segments int) {
	t.Helper()
	inside(t, ns, func(kernel.Kernel) error {
		for range sets {
			if _, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, 0o600); errno != 0 {
				return errno
			}
		}
		for range segments {
			if _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}
