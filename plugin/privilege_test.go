package plugin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

var idleProgram = nstest.Program("plugin.idle", idle)

// idle lives in a namespace until its stdin ends.
func idle([]string) {
	fmt.Println("idle")
	os.Stdin.Read(make([]byte, 1))
}

// inhabit starts a task in a namespace.
func inhabit(t *testing.T, ns *nsenter.Namespace) *nstest.Process {
	t.Helper()
	p := nstest.Start(t, ns, idleProgram)
	if _, err := p.Stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return p
}

// foreign is a queue of another user.
func foreign(id, key int32, texts ...string) queue {
	q := aQueue(id, key, texts...)
	q.UID, q.GID, q.CUID, q.CGID = 1001, 1002, 1003, 1004
	return q
}

// Each privilege that is missing is named, and nothing has changed.
func TestPrivilegeNamed(t *testing.T) {
	nstest.Require(t, "root")
	images := saved(t, aQueue(7, 0x77, "a"), foreign(8, 0x88, "b"))
	for _, c := range []struct {
		name            string
		without         uint
		restore, freeze bool
		says            string
	}{
		{"checkpoint", unix.CAP_SYS_ADMIN, false, false, "CAP_SYS_ADMIN"},
		{"checkpoint", unix.CAP_IPC_OWNER, false, false, "queue 4 (key 0x44): copy message 0 of 1: permission denied (needs read permission on the queue, or CAP_IPC_OWNER)"},
		{"checkpoint --freeze", unix.CAP_SYS_PTRACE, false, true, "CAP_SYS_PTRACE"},
		{"restore", unix.CAP_SYS_ADMIN, true, false, "CAP_SYS_ADMIN"},
		{"restore", unix.CAP_IPC_OWNER, true, false, "CAP_IPC_OWNER"},
		{"restore", unix.CAP_SETUID, true, false, "CAP_SETUID"},
		{"restore", unix.CAP_SETGID, true, false, "CAP_SETGID"},
		{"restore", unix.CAP_SETPCAP, true, false, "CAP_SETPCAP"},
		{"restore", unix.CAP_SYS_PTRACE, true, false, "CAP_SYS_PTRACE"},
	} {
		t.Run(fmt.Sprint(c.name, " without ", c.says), func(t *testing.T) {
			ns, dir := nstest.Fresh(t), filepath.Join(t.TempDir(), "images")
			fill(t, ns, foreign(4, 0x44, "closed"))
			was := stateOf(t, ns)
			op := operation{PID: inhabit(t, ns).PID(), Dir: dir, Without: []uint{c.without}, Restore: c.restore, Freeze: c.freeze}
			if c.restore {
				op.Dir = images
			}
			wantFailure(t, op.result(t), c.name[:7], ns.String(), c.says)
			wantSame(t, ns, was)
			wantNobodyStopped(t, ns)
			wantNoCheckpoint(t, dir)
		})
	}
}

// Who lives in the namespace needs no right to enter it, and lacks it only when the
// queues are to be opened, or others to go: that is found out before anything is made.
func TestPrivilegeInside(t *testing.T) {
	nstest.Require(t, "root")
	for _, c := range []struct {
		name string
		op   operation
		dir  string
		says string
	}{
		{"to open", operation{Without: []uint{unix.CAP_SYS_ADMIN}}, saved(t, foreign(8, 0x88, "b")), "open queues of uid 1003 when they are complete: needs CAP_SYS_ADMIN"},
		{"to remove", operation{Without: []uint{unix.CAP_SYS_ADMIN}, OnConflict: plugin.Replace}, saved(t, aQueue(4, 0x99)), "remove queue 4 of uid 1001: needs CAP_SYS_ADMIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := nstest.Fresh(t)
			fill(t, ns, foreign(4, 0x44, "closed"))
			was := stateOf(t, ns)
			c.op.PID, c.op.Inside, c.op.Restore, c.op.Dir = inhabit(t, ns).PID(), ns, true, c.dir
			wantFailure(t, c.op.result(t), c.says)
			wantSame(t, ns, was)
		})
	}
}

// The limits are written last. That they can be is found out first.
func TestLimitsCannotBeWritten(t *testing.T) {
	nstest.Require(t, "root")
	dir := savedWith(t, sysctls{9000, 16384, 32000}, aQueue(0, 0x77, "a"))
	ns := nstest.Fresh(t)
	was := stateOf(t, ns)
	op := operation{PID: inhabit(t, ns).PID(), Restore: true, Dir: dir, NoWrite: true}
	wantFailure(t, op.result(t), "open sysctl kernel.msgmax for writing: "+unix.EROFS.Error())
	wantSame(t, ns, was)
	op.Dir = savedWith(t, defaults, aQueue(0, 0x77, "a")) // nothing to write
	if err := op.result(t); err != nil {
		t.Error(err)
	}
}

// What a capability is not needed for works without it.
func TestPrivilegeNotNeeded(t *testing.T) {
	nstest.Require(t, "root")
	without := []uint{unix.CAP_SYS_PTRACE, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_IPC_OWNER}
	ns, dir := nstest.Fresh(t), t.TempDir()
	own := aQueue(4, 0x44, "own")
	fill(t, ns, own)
	if err := (operation{PID: inhabit(t, ns).PID(), Dir: dir, Without: without}).result(t); err != nil {
		t.Errorf("checkpoint of own queues: %v", err)
	}
	if err := (operation{Dir: dir, Restore: true, Without: without[:4]}).result(t); err != nil {
		t.Errorf("restore of own queues: %v", err)
	}
	// Equal queues are left alone, for which nothing is needed.
	wantImage(t, dir, own)
}

func TestKernelWithoutCopy(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), filepath.Join(t.TempDir(), "images")
	fill(t, ns, aQueue(4, 0x44, "a"))
	was := stateOf(t, ns)
	op := operation{PID: inhabit(t, ns).PID(), Dir: dir, NoCopy: true}
	wantFailure(t, op.result(t), "queue 4 (key 0x44): copy message 0 of 1", "MSG_COPY: "+unix.ENOSYS.Error(), "CONFIG_CHECKPOINT_RESTORE")
	wantSame(t, ns, was)
	wantNoCheckpoint(t, dir)
}
