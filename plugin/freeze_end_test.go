package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// A caller that gives up while tasks stand still lets them go.
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

// A step that does not end holds nobody for longer than the limit, whatever it waits
// for: the tasks run again, and nothing is made or written.
func TestFrozenLimit(t *testing.T) {
	nstest.Require(t, "userns")
	for _, restore := range []bool{true, false} {
		t.Run(fmt.Sprintf("restore %t", restore), func(t *testing.T) {
			limit := 150 * time.Millisecond
			nstest.Try(t, func() error {
				limit *= 2
				return hangFrozen(t, restore, limit)
			})
		})
	}
}

// hangFrozen has a checkpoint or a restore hang until its tasks run again. The error
// says that it did not come to the step that hangs.
func hangFrozen(t *testing.T, restore bool, limit time.Duration) error {
	t.Helper()
	ns, dir := nstest.Fresh(t), filepath.Join(t.TempDir(), "images")
	fill(t, ns, aQueue(1, 0x11, "one"))
	p := inhabit(t, ns)
	was := stateOf(t, ns)
	hung := false
	hangs := func(kernel.Kernel) error {
		for began := time.Now(); tracerOf(t, p.PID()) != 0; time.Sleep(time.Millisecond) {
			if hung = true; time.Since(began) > 20*time.Second {
				return errors.New("it holds them for longer than the limit")
			}
		}
		return nil
	}
	m := &meddler{copying: hangs, making: hangs}
	kinds := []plugin.Kind{m, msgq.Kind{}, ipcvar.Kind{}}
	var err error
	if restore {
		_, err = plugin.Restore(t.Context(), plugin.RestoreOptions{Kinds: kinds, Namespace: ns, Dir: saved(t, aQueue(2, 0x22, "two")), Number: images.Auto}.WithFrozenLimit(limit))
	} else {
		_, err = plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true}.WithFrozenLimit(limit))
	}
	wantSame(t, ns, was)
	wantNobodyStopped(t, ns)
	wantNoCheckpoint(t, dir)
	wantFailure(t, err, ns.String())
	if !hung {
		return fmt.Errorf("the limit was over before the step that hangs: %w", err)
	}
	wantFailure(t, err, fmt.Sprintf("the tasks stood still for %v, which is the limit: the ", limit))
	return nil
}

// tracerOf returns the process that traces a process, 0 for nobody.
func tracerOf(t *testing.T, pid int) (tracer int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nTracerPid:\t")
	if _, err := fmt.Sscan(after, &tracer); err != nil {
		t.Fatal(err)
	}
	return tracer
}
