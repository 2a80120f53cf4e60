package criuhook

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

var tracedProgram = nstest.Program("criuhook.traced", func([]string) { select {} })

// Of a criu that ends the kernel shows its program no more before it lets its tasks go:
// what was one stays one.
func TestTracersAreRemembered(t *testing.T) {
	nstest.Require(t, "userns")
	pid := nstest.Start(t, nil, tracedProgram).PID()
	held := warden.Held{Loose: []freeze.Task{{PID: pid, TID: pid, Why: freeze.WhyTraced}}}
	known := tracers{}
	wait := func(what string, limit time.Duration, released bool) {
		t.Helper()
		if gotLimit, gotReleased := known.waitFor(held); gotLimit != limit || gotReleased != released {
			t.Errorf("%s: wait for %v, released %t, want %v and %t", what, gotLimit, gotReleased, limit, released)
		}
	}
	wait("its tracer has gone", thawing, true)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(pid, unix.SIGKILL)
	wait("under a tracer that is no criu", thawing, false)
	known[unix.Gettid()] = true
	wait("under one that was seen to be criu", letting, false)
}
