package e2e_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// What CRIU gets wrong on restore. Should one of these fail because CRIU has
// become better, then the documentation is to be told.
var criuWrong = []struct {
	name string
	make func(t testing.TB, ns *nsenter.Namespace)
	log  string       // the error that CRIU's restore ends with, or
	spot func(*queue) // what it makes of the queue
}{
	{"message over 8192 bytes", func(t testing.TB, ns *nsenter.Namespace) {
		inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 1<<16) })
		makeQueue(t, ns, 0x1234, message{1, pattern(8193)})
	}, "Unsupported message size: 8193", nil},
	{"qbytes raised", func(t testing.TB, ns *nsenter.Namespace) {
		id := makeQueue(t, ns, 0x1234, samples...)
		inNamespace(t, ns, func() error { return setQbytes(id, 1<<20) })
	}, "", func(q *queue) { q.Qbytes = defaultQbytes }},
	{"qbytes raised and used", func(t testing.TB, ns *nsenter.Namespace) {
		id := makeQueue(t, ns, 0x1234)
		inNamespace(t, ns, func() error { return setQbytes(id, 1<<20) })
		sendAll(t, ns, id, message{1, pattern(8192)}, message{2, pattern(8192)}, message{3, pattern(8192)})
	}, "Failed to send IPC message", nil},
	{"creator", func(t testing.TB, ns *nsenter.Namespace) {
		makeQueueAs(t, ns, 1000, 0x1234, samples...)
	}, "", func(q *queue) { q.CUID, q.CGID = 0, 0 }},
	{"fuller than its qbytes", func(t testing.TB, ns *nsenter.Namespace) {
		id := makeQueue(t, ns, 0x1234, samples...)
		inNamespace(t, ns, func() error { return setQbytes(id, 100) })
	}, "", func(q *queue) { q.Qbytes = defaultQbytes }},
}

// defaultQbytes is MSGMNB of include/uapi/linux/msg.h.
const defaultQbytes = 16384

func sendAll(t testing.TB, ns *nsenter.Namespace, id int, messages ...message) {
	t.Helper()
	inNamespace(t, ns, func() error {
		for _, m := range messages {
			if err := send(id, m); err != nil {
				return fmt.Errorf("msgsnd: %w", err)
			}
		}
		return nil
	})
}

func TestWhereCRIUIsWrong(t *testing.T) {
	for _, c := range criuWrong {
		t.Run(c.name, func(t *testing.T) {
			nstest.Require(t, "criu")
			k := startSleeper(t, nstest.Fresh(t))
			c.make(t, k.ns(t))
			saved := queues(t, k.ns(t))
			dir := dump(t, k)
			compareQueues(t, saved, queues(t, restoredFresh(t, dir)))
			if c.spot == nil {
				restoreFails(t, dir, c.log)
				return
			}
			c.spot(&saved[0])
			compareQueues(t, saved, queues(t, restore(t, dir).ns(t)))
		})
	}
}

func restoreFails(t *testing.T, dir, trouble string) {
	t.Helper()
	if exec.Command("criu", "restore", "-D", dir, "-o", "restore.log", "-v4", "--restore-detached").Run() == nil {
		t.Fatal("CRIU restores this now")
	}
	if log := errorsIn(filepath.Join(dir, "restore.log")); !strings.Contains(log, trouble) {
		t.Errorf("CRIU fails for another reason than %q:\n%s", trouble, log)
	}
}

// CRIU cannot even dump a namespace whose msgmax is below a message.
func TestCRIUCannotDumpPastMsgmax(t *testing.T) {
	nstest.Require(t, "criu")
	k := startSleeper(t, nstest.Fresh(t))
	makeQueue(t, k.ns(t), 0x1234, samples...)
	saved := queues(t, k.ns(t))
	inNamespace(t, k.ns(t), func() error { return setSysctl("kernel/msgmax", 100) })

	dir := imagesDir(t)
	if exec.Command("criu", "dump", "-t", fmt.Sprint(k.pid), "-D", dir, "-o", "dump.log", "-v4", "--leave-running").Run() == nil {
		t.Error("CRIU dumps this now")
	}
	ns := restoredFresh(t, checkpointed(t, k.pid, 1))
	if got := limits(t, ns)[0]; got != 100 {
		t.Errorf("msgmax %d, want 100", got)
	}
	compareQueues(t, saved, queuesPastMsgmax(t, ns))
}
