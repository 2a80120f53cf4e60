package warden

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// A wait that its deadline ends says what was waited for, and how long.
func TestLate(t *testing.T) {
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	_, asked := ask(ours, request{Do: doHold}, nil, 300*time.Millisecond)
	for err, want := range map[error]string{
		asked: `no answer to "hold" within 300ms: `,
		introduce(ours, birth{}, 300*time.Millisecond): "its answer: none within 300ms: ",
	} {
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

var errOver = errors.New("somebody has had enough")

// What ends a wait from outside is said in its own words, and whom it was for.
func TestHoldSaysWhyItEnded(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	first, second := startCRIU(t, dir).start(t, dir), startCRIU(t, dir).start(t, dir)
	mustHold(t, first, HoldRequest{Namespace: ns})
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(errOver) })
	if _, err := second.Hold(ctx, HoldRequest{Namespace: ns}); !errors.Is(err, errOver) || !strings.Contains(err.Error(), "hold the tasks of "+ns.String()+": ") {
		t.Errorf("given up: %v, want its cause", err)
	}
}

// So is its own end, unless its process ends before it has answered.
func TestHoldSaysThatTheWardenEnds(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	first := startCRIU(t, dir).start(t, dir)
	mustHold(t, first, HoldRequest{Namespace: ns})
	nstest.Try(t, func() error {
		second := startCRIU(t, dir).start(t, dir)
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
		err := <-done
		if errors.Is(err, ErrNone) {
			return errors.New("the warden's process had ended before it had answered")
		}
		if !errors.Is(err, errEnding) || strings.Contains(err.Error(), "canceled") {
			t.Errorf("the warden's end: %v, want that it is ending", err)
		}
		return nil
	})
}

// Whose turn was waited for is said as well.
func TestTurnSaysWhyItEnded(t *testing.T) {
	dir, first, second := tempState(t), startCRIU(t, tempState(t)), startCRIU(t, tempState(t))
	self, err := state.Self()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		criu fakeCRIU
		want string
	}{
		{first, ""},
		{second, fmt.Sprintf("wait for the turn at X: that of process %d (", first.PID())},
	} {
		mine, err := newClaim(c.criu.id, self)
		if err != nil {
			t.Fatal(err)
		}
		p := newPost()
		time.AfterFunc(20*time.Millisecond, func() { p.cancel(errEnding) })
		_, err = takeTurn(p.ctx, dir, namespaceTurn(nsenter.Identity{ID: 7}), "X", mine, time.Minute)
		if c.want == "" {
			must(t, err)
			continue
		}
		if !errors.Is(err, errEnding) || !strings.Contains(err.Error(), c.want) || strings.Count(p.whyDone(err).Error(), errEnding.Error()) != 1 {
			t.Errorf("got %v, want %q and that the warden is ending, once", err, c.want)
		}
	}
}

// So is the limit on how long tasks may be frozen, where it comes before all have
// stopped.
func TestHoldSaysThatTheLimitIsOver(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir, c := nstest.Fresh(t), tempState(t), newCounters(t)
	startFamily(t, ns, c, 0, 0)
	w := startCRIU(t, dir).start(t, dir)
	_, err := w.Hold(context.Background(), HoldRequest{Namespace: ns, Limit: 1})
	if !errors.Is(err, ErrLimit) || strings.Contains(err.Error(), "deadline") || !strings.Contains(err.Error(), " (1ns)") || strings.Count(err.Error(), ErrLimit.Error()) != 1 {
		t.Errorf("got %v, want ErrLimit, once", err)
	}
}
