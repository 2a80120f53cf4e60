package warden

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
)

// In one namespace: a runtime, its CRIU and CRIU's script; a container; and a
// neighbour, who alone is to stand.
func TestHoldStopsTheNeighboursAlone(t *testing.T) {
	ns, dir, c := nstest.Fresh(t), tempState(t), newCounters(t)
	runtime, chain := startFamily(t, ns, c, 0, 2)
	_, tree := startFamily(t, ns, c, 3, 1)
	startFamily(t, ns, c, 5, 1)
	criu := fakeCRIU{runtime, lookup(t, chain[1])}
	w := criu.start(t, dir)
	held := mustHold(t, w, HoldRequest{Namespace: ns, Init: tree[0]})
	c.mustStand(t, 3, 5, 6)
	c.mustRun(t, 0, 1, 2, 3, 4)
	if held.Inode != ns.Inode() || held.Tasks < 2 || held.Exempt < 5 || held.LooseTotal != 0 {
		t.Errorf("held %+v", held)
	}
	again := mustHold(t, w, HoldRequest{Namespace: ns, Init: tree[0]})
	if fmt.Sprint(again) != fmt.Sprint(held) {
		t.Errorf("held again: %+v, first %+v", again, held)
	}
	other := nstest.Fresh(t)
	_, err := w.Hold(context.Background(), HoldRequest{Namespace: other})
	mustSay(t, err, "hold the tasks of "+other.String()+": those of "+ns.String()+" are held for this CRIU already")
	c.mustStand(t, 3, 5, 6)
	stood, err := w.Let()
	if err != nil || stood.For <= 0 || stood.Tasks != held.Tasks {
		t.Errorf("stood %+v, %v", stood, err)
	}
	c.mustRun(t, 5, 6)
	if _, err := w.Let(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("let again: %v, want ErrNotHeld", err)
	}
	must(t, w.End())
	mustBeEmpty(t, dir)
}

// Without a container's tree only CRIU's family is spared.
func TestHoldWithoutInit(t *testing.T) {
	ns, dir, c := nstest.Fresh(t), tempState(t), newCounters(t)
	startFamily(t, ns, c, 0, 1)
	beside, _ := startFamily(t, nil, c, 2, 0)
	criu := fakeCRIU{beside, lookup(t, beside.PID())}
	w := criu.start(t, dir)
	if held := mustHold(t, w, HoldRequest{Namespace: ns}); held.Exempt != 0 || held.Tasks < 2 {
		t.Errorf("held %+v", held)
	}
	c.mustStand(t, 2, 0, 1)
	must(t, w.End())
	c.mustRun(t, 0, 1)
}

func TestHoldRefusesTheHost(t *testing.T) {
	nstest.Require(t, "host")
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	host, err := nsenter.Current()
	must(t, err)
	defer host.Close()
	r := HoldRequest{Namespace: host, Limit: time.Second} // or a mistake stops the machine
	if _, err := w.Hold(t.Context(), r); !errors.Is(err, freeze.ErrHost) {
		t.Errorf("hold the host: %v, want ErrHost", err)
	}
	if _, err := w.Let(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("let: %v, want ErrNotHeld", err)
	}
	if got := files(t, dir); len(got) != 2 {
		t.Errorf("files %v, want the note and the socket", got)
	}
}

func TestLimit(t *testing.T) {
	const limit = 2 * time.Second // more than to stop them takes on a busy machine
	ns, dir, c := nstest.Fresh(t), tempState(t), newCounters(t)
	startFamily(t, ns, c, 0, 0)
	w := startCRIU(t, dir).start(t, dir)
	mustHold(t, w, HoldRequest{Namespace: ns, Limit: limit})
	c.mustRun(t, 0)
	stood, err := w.Let()
	if !errors.Is(err, ErrLimit) || stood.For < limit || stood.Tasks == 0 {
		t.Errorf("let: %+v, %v, want ErrLimit and how long", stood, err)
	}
	mustHold(t, w, HoldRequest{Namespace: ns, Limit: time.Hour})
	if _, err := w.Let(); err != nil {
		t.Errorf("within the limit: %v", err)
	}
}

func TestNamespaceTurns(t *testing.T) {
	ns, dir, c := nstest.Fresh(t), tempState(t), newCounters(t)
	startFamily(t, ns, c, 0, 0)
	one, two := startCRIU(t, dir), startCRIU(t, dir)
	first, second := one.start(t, dir), two.start(t, dir)
	mustHold(t, first, HoldRequest{Namespace: ns})

	second.wait = 50 * time.Millisecond
	_, err := second.Hold(context.Background(), HoldRequest{Namespace: ns})
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (%q)", one.PID(), comm(t, one.PID()))) {
		t.Errorf("beside another: %v, want ErrBusy and its name", err)
	}
	if other, err := second.Hold(context.Background(), HoldRequest{Namespace: nstest.Fresh(t)}); err != nil {
		t.Errorf("another namespace: %+v, %v", other, err)
	} else if _, err := second.Let(); err != nil {
		t.Error(err)
	}

	second.wait = deadline
	done := make(chan error)
	go func() {
		_, err := second.Hold(context.Background(), HoldRequest{Namespace: ns})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	if _, err := first.Let(); err != nil {
		t.Fatal(err)
	}
	must(t, <-done)

	done2 := make(chan error)
	go func() {
		_, err := first.Hold(context.Background(), HoldRequest{Namespace: ns})
		done2 <- err
	}()
	killed(t, second)
	select {
	case err := <-done2:
		t.Fatalf("did not wait for a CRIU whose warden was killed: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	two.Kill()
	must(t, <-done2)
}

// A turn without tasks bars others, and is barred by them.
func TestTurnOnly(t *testing.T) {
	ns, dir, c := nstest.Fresh(t), tempState(t), newCounters(t)
	startFamily(t, ns, c, 0, 0)
	one, two := startCRIU(t, dir), startCRIU(t, dir)
	first, second := one.start(t, dir), two.start(t, dir)
	first.wait, second.wait = 50*time.Millisecond, 50*time.Millisecond
	if held := mustHold(t, first, HoldRequest{Namespace: ns, TurnOnly: true}); held.Tasks != 0 {
		t.Errorf("%d tasks are held", held.Tasks)
	}
	c.mustRun(t, 0)
	for _, only := range []bool{false, true} {
		if _, err := second.Hold(t.Context(), HoldRequest{Namespace: ns, TurnOnly: only}); !errors.Is(err, ErrBusy) {
			t.Errorf("beside another: %v, want ErrBusy", err)
		}
	}
	_, err := first.Hold(t.Context(), HoldRequest{Namespace: ns}) // who asked for the turn alone
	mustSay(t, err, "hold the tasks of "+ns.String()+": those of "+ns.String()+" are held for this CRIU already")
	if _, err := first.Let(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, second, HoldRequest{Namespace: ns})
	if _, err := first.Hold(t.Context(), HoldRequest{Namespace: ns, TurnOnly: true}); !errors.Is(err, ErrBusy) {
		t.Errorf("beside another: %v, want ErrBusy", err)
	}
}

func comm(t *testing.T, pid int) string {
	t.Helper()
	name := described(lookup(t, pid))
	_, name, _ = strings.Cut(name, `("`)
	name, _, _ = strings.Cut(name, `")`)
	return name
}

// Ctx ends the wait, on both sides.
func TestHoldIsCancelled(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	first, second := startCRIU(t, dir).start(t, dir), startCRIU(t, dir).start(t, dir)
	mustHold(t, first, HoldRequest{Namespace: ns})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := second.Hold(ctx, HoldRequest{Namespace: ns}); !errors.Is(err, context.Canceled) {
		t.Errorf("hold: %v, want Canceled", err)
	}
	if _, err := first.Let(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Let(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("let: %v, want ErrNotHeld", err)
	}
	if got := files(t, dir); len(got) != 4 {
		t.Errorf("files %v, want two notes and two sockets", got)
	}
}

// A warden that was asked to end does not wait for a turn any more.
func TestEndDuringAWait(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	first, second := startCRIU(t, dir).start(t, dir), startCRIU(t, dir).start(t, dir)
	mustHold(t, first, HoldRequest{Namespace: ns})
	done := make(chan error)
	go func() {
		_, err := second.Hold(context.Background(), HoldRequest{Namespace: ns})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	must(t, second.End())
	// What it answers, if it comes to that, see TestHoldSaysThatTheWardenEnds.
	if err := <-done; !errors.Is(err, errEnding) && !errors.Is(err, ErrNone) {
		t.Errorf("hold: %v, want that the warden is ending, or has ended", err)
	}
	must(t, first.End())
	mustBeEmpty(t, dir)
}

func TestWardenSurvivesSignals(t *testing.T) {
	dir := tempState(t)
	criu := startCRIU(t, dir)
	w := criu.start(t, dir)
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1} {
		must(t, unix.Kill(w.PID(), signal))
	}
	mustBeAside(t, w)
	if found, err := Find(criu.id, dir); err != nil || found.PID() != w.PID() {
		t.Errorf("found %+v, %v", found, err)
	}
}
