package criuhook_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// A pre-dump that is ended while it waits for neighbours that somebody else keeps
// stopped says so, and by what.
func TestGivenUpWaitingForNeighbours(t *testing.T) {
	r := newRig(t)
	nstest.Start(t, r.ns, idle)
	fill(t, r.ns, 1, 1)
	other, err := freeze.All(t.Context(), r.ns.Inode(), freeze.Options{Exempt: func(pid int) bool { return pid == r.container.PID() }})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	criu, err := state.Lookup(r.criu.PID())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("somebody has had enough")
	time.AfterFunc(200*time.Millisecond, func() { cancel(enough) })
	h := &criuhook.Hook{Kinds: kinds, Log: &r.log}
	err = h.Run(ctx, criuhook.Event{Action: criuhook.PreDump, ImagesDir: r.dir, InitPID: r.container.PID(), CRIU: criu})
	// It may just be trying again to hold them.
	if !errors.Is(err, enough) || !strings.HasPrefix(err.Error(), "pre-dump: wait for neighbours that ") && !strings.HasPrefix(err.Error(), "pre-dump: hold the tasks of ") {
		t.Errorf("got %v, want what was waited for and why it ended", err)
	}
}
