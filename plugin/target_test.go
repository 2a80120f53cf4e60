package plugin_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/sysv"
)

// Tasks that live in the target are frozen while objects are made, and go on.
func TestTargetIsStopped(t *testing.T) {
	nstest.Require(t, "userns")
	ns, q := nstest.Fresh(t), aQueue(7, 0x77, "a", "b")
	startMovers(t, ns, "0s")
	dir := saved(t, q)
	report := load(t, ns, dir, plugin.Fail)
	if report.Frozen == nil || report.Frozen.Tasks < 2 {
		t.Errorf("frozen %+v", report.Frozen)
	}
	wantNobodyStopped(t, ns)
	waitMoved(t, ns)
	copied := t.TempDir()
	if _, err := tryFrozen(t, ns, copied); err != nil {
		t.Fatal(err)
	}
	queues := readImage(t, copied)
	if wrong := checkMoved(queues); wrong != "" {
		t.Errorf("the neighbours' queues: %s", wrong)
	}
	within(t, ns, wantQueueIn(t, q))
}

// They go on after a restore that is refused, too.
func TestTargetGoesOnAfterARefusal(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	startMovers(t, ns, "0s")
	_, err := tryLoad(t, ns, saved(t, aQueue(tokenHere, 0x99)), plugin.Fail)
	wantFailure(t, err, "queue 10 (key 0x99)", "is taken by queue 10 (key 0x10)")
	wantNobodyStopped(t, ns)
	waitMoved(t, ns)
}

var makerProgram = nstest.Program("plugin.maker", makeQueues)

// makeQueues makes and removes queues without end: in between it may get any
// id, and inherits any msgmnb.
func makeQueues([]string) {
	for first := true; ; first = false {
		id, _, errno := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, 0o600, 0)
		if errno != 0 {
			panic(errno)
		}
		if first {
			unix.Write(1, []byte("making\n"))
		}
		if _, _, errno = unix.Syscall(unix.SYS_MSGCTL, id, unix.IPC_RMID, 0); errno != 0 {
			panic(errno)
		}
	}
}

// A neighbour that makes queues all the time takes no id from the restore. Its own
// queues go through the indexes below 64 (ipc_min_cycle of ipc/util.h), so one may
// stand at any of these when the tasks are stopped: the image's have others.
func TestTargetMakesQueues(t *testing.T) {
	nstest.Require(t, "userns")
	queues := []queue{aQueue(100, 0x11, "a"), aQueue(140, 0, "b"), aQueue(1<<20|77, 0x33, strings.Repeat("c", 10000))}
	dir := savedWith(t, sysctls{20000, 70000, 200}, queues...)
	for range 5 {
		ns := nstest.Fresh(t)
		if _, err := nstest.Start(t, ns, makerProgram).Stdout.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		load(t, ns, dir, plugin.Fail)
		within(t, ns, wantQueueIn(t, queues[0]))
		within(t, ns, wantQueueIn(t, queues[1]))
		wantNobodyStopped(t, ns)
	}
}

var heirProgram = nstest.Program("plugin.heir", inherit)

// inherit makes and removes queues on some threads until its stdin ends, and says
// the highest qbytes that one of them began with.
func inherit([]string) {
	var stop atomic.Bool
	var group sync.WaitGroup
	highest, making := make([]uint64, 4), make(chan bool)
	for i := range highest {
		group.Go(func() {
			runtime.LockOSThread()
			making <- true
			for !stop.Load() {
				highest[i] = max(highest[i], inherited())
			}
		})
	}
	for range highest {
		<-making
	}
	fmt.Println("making")
	os.Stdin.Read(make([]byte, 1))
	stop.Store(true)
	group.Wait()
	fmt.Println(slices.Max(highest))
}

// inherited is the qbytes of a new queue, which it removes.
func inherited() uint64 {
	id, err := sysv.Get(unix.IPC_PRIVATE, 0o600)
	mustBe(err, nil)
	var ds sysv.MsqidDS
	mustBe(sysv.Stat(id, &ds), nil)
	mustBe(sysv.Remove(id), nil)
	return ds.QBytes
}

// A queue keeps the msgmnb under which it was made. So the tasks are frozen until
// a raised one is put back: none of a neighbour's queues begins with it. Where they
// go on too soon, it is by a moment: hence the rounds.
func TestTargetInheritsNoRaisedLimit(t *testing.T) {
	nstest.Require(t, "userns")
	large := aQueue(100, 0x11, "a")
	large.QBytes = 70000
	dir := savedWith(t, sysctls{8192, 70000, 32000}, large)
	for range 5 {
		ns := nstest.Fresh(t)
		fill(t, ns, stranger) // else the image's limits stay
		p := nstest.Start(t, ns, heirProgram)
		if _, err := p.Stdout.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		report := load(t, ns, dir, plugin.Fail)
		if len(report.Limits) != 1 || report.Limits[0].Raised != 70000 {
			t.Errorf("raised %+v, want msgmnb", report.Limits)
		}
		p.Stdin.Close()
		if says, err := p.Stdout.ReadString('\n'); says != "16384\n" {
			t.Errorf("a neighbour's queue has qbytes %q, %v, want 16384", says, err)
		}
	}
}

// savedWith is saved, in a namespace with limits of its own.
func savedWith(t *testing.T, l sysctls, queues ...queue) string {
	t.Helper()
	ns, dir := nstest.Fresh(t), t.TempDir()
	setLimits(t, ns, l)
	fill(t, ns, queues...)
	if _, err := tryFrozen(t, ns, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
