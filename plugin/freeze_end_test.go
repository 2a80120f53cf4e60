package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// A caller that gives up while tasks are frozen lets them go.
func TestFrozenCancelled(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), filepath.Join(t.TempDir(), "images")
	startMovers(t, ns, "0s")
	reason := errors.New("no longer wanted")
	nstest.Try(t, func() error {
		ctx, cancel := context.WithCancelCause(t.Context())
		looked := make(chan struct{})
		go func() {
			defer close(looked)
			for ctx.Err() == nil {
				if somebodyStopped(t, ns) {
					cancel(reason)
				}
			}
		}()
		_, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{
			Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true, Force: true,
		})
		cancel(nil)
		<-looked
		wantNobodyStopped(t, ns)
		waitMoved(t, ns)
		if err == nil {
			return errors.New("the copy was complete before it could be given up")
		}
		if !errors.Is(err, reason) {
			t.Errorf("%v, want its cause", err)
		}
		return nil
	})
}

// A checkpoint that waits for a quiet second and is given up names the busy queue too.
func TestGivenUpWhileBusy(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	startMovers(t, ns, "0s")
	enough := errors.New("enough")
	patience := 300 * time.Millisecond
	nstest.Try(t, func() error {
		ctx, cancel := context.WithTimeoutCause(t.Context(), patience, enough)
		defer cancel()
		_, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1})
		switch {
		case err == nil:
			return errors.New("nothing moved during the copy")
		case !strings.Contains(err.Error(), " of 5: "):
			patience *= 2
			wantFailure(t, err, "checkpoint "+ns.String()+": ", enough.Error())
			return fmt.Errorf("it was given up before it had to wait: %w", err)
		}
		if !errors.Is(err, enough) {
			t.Errorf("error %v, want its cause", err)
		}
		wantFailure(t, err, "checkpoint "+ns.String()+": queue ", " of 5: wait for the next second to begin: enough")
		return nil
	})
}
