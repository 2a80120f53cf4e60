package plugin_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// Objects of other kinds are not carried, and that is said.
func TestOtherKindsAreNamed(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	makeOtherKinds(t, ns)
	nstest.POSIXQueue(t, ns, "first", false)
	nstest.POSIXQueue(t, ns, "second", false)
	nstest.POSIXQueue(t, ns, "unlinked", true)
	const systemV = "semaphore sets are not saved: 1 in the namespace; shared memory segments are not saved: 1 in the namespace"
	const all = systemV + "; POSIX message queues are not saved: 2 in the namespace, of which a restore makes none"
	for _, c := range []struct {
		opt  plugin.CheckpointOptions
		want string
	}{
		{plugin.CheckpointOptions{}, all},
		{plugin.CheckpointOptions{Freeze: true}, all},
		{plugin.CheckpointOptions{SkipPOSIX: true}, systemV},
	} {
		c.opt.Kinds, c.opt.Namespace, c.opt.Dir, c.opt.Number, c.opt.Force = kinds, ns, dir, 1, true
		report, err := plugin.Checkpoint(t.Context(), c.opt)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(report.Warnings, "; "); got != c.want || len(report.NotKnown) > 0 {
			t.Errorf("warnings %q, want %q; not known %q", got, c.want, report.NotKnown)
		}
	}
	writeFile(t, dir+"/ipcns-sem-1.img", "CRIU's")
	withoutManifest(t, dir)
	restored := load(t, nstest.Fresh(t), dir, plugin.Fail)
	if got := strings.Join(restored.Warnings, "; "); got != "ipcns-sem-1.img holds objects of a kind that ipc-cr does not restore" {
		t.Errorf("warnings %q", got)
	}
}

func makeOtherKinds(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	err := ns.Run(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, 0o600); errno != 0 {
			return errno
		}
		_, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCountAll(t *testing.T) {
	ns := nstest.Fresh(t)
	if size, others, err := plugin.CountAll(ns, kinds); size != (plugin.Size{}) || others != (plugin.Others{}) || others.SystemV() || err != nil {
		t.Errorf("an empty namespace: %+v, %+v, %v", size, others, err)
	}
	nstest.POSIXQueue(t, ns, "first", false)
	if _, others, err := plugin.CountAll(ns, kinds); others != (plugin.Others{POSIXQueues: 1}) || others.SystemV() || err != nil {
		t.Errorf("%+v, %v", others, err)
	}
	makeOtherKinds(t, ns)
	fill(t, ns, aQueue(7, 0x77, "a", "bb"))
	size, others, err := plugin.CountAll(ns, kinds)
	want := plugin.Others{Semaphores: 1, SharedMemory: 1, POSIXQueues: 1}
	if size != (plugin.Size{Objects: 1, Messages: 2, Bytes: 3}) || others != want || !others.SystemV() || err != nil {
		t.Errorf("%+v, %+v, %v", size, others, err)
	}
}
