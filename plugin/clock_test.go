package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/sysv"
)

func openClock(t *testing.T) *clock {
	t.Helper()
	c, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// What the kernel stamps on a queue lies between the seconds read before and after,
// also where the fine clock is in the next second already, up to a tick sooner.
func TestSecondIsTheKernels(t *testing.T) {
	ns, c := nstest.Fresh(t), openClock(t)
	err := ns.Run(func() error {
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(998 * time.Millisecond)))
		for first, last := int64(0), int64(0); first == last; {
			before, err := c.second()
			if err != nil {
				return err
			}
			if last, err = stampOf(); err != nil {
				return err
			}
			after, err := c.second()
			if err != nil {
				return err
			}
			if last < before || last > after {
				return fmt.Errorf("stime %d, but %d was read before and %d after", last, before, after)
			}
			if first == 0 {
				first = last
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// stampOf sends to a new queue and returns the queue's stime.
func stampOf() (int64, error) {
	id, err := sysv.Get(0, 0o600) // IPC_PRIVATE
	if err != nil {
		return 0, err
	}
	var stat sysv.MsqidDS
	err = errors.Join(sysv.Send(id, []byte{1, 0, 0, 0, 0, 0, 0, 1, 'x'}), sysv.Stat(id, &stat), sysv.Remove(id))
	return stat.STime, err
}

// The vDSO's copy of the coarse clock may lag, and no filter would see it read.
func TestSecondIsReadBySystemCall(t *testing.T) {
	c := openClock(t)
	nstest.Failing(t, unix.EPERM, unix.CLOCK_REALTIME_COARSE, []uint32{unix.SYS_CLOCK_GETTIME}, func() {
		if second, err := c.second(); !errors.Is(err, unix.EPERM) {
			t.Errorf("second %d, %v, want EPERM", second, err)
		}
	})
}

// A clock that was set proves nothing: a time stamp may be of any second.
func TestJudgeOfASetClock(t *testing.T) {
	c := openClock(t)
	now, err := c.second()
	if err != nil {
		t.Fatal(err)
	}
	if err := judge(c, nil, now, nil); err != nil {
		t.Errorf("nobody set it: %v", err)
	}
	wantSet := func(err error) {
		t.Helper()
		if !errors.Is(err, kind.ErrChanged) || !strings.Contains(err.Error(), "the clock was set") {
			t.Errorf("got %v, want that the clock was set", err)
		}
	}
	wantSet(judge(c, nil, now+3600, nil))
	// To provoke it, the machine's clock would have to be set.
	nstest.Failing(t, unix.ECANCELED, uint32(c.timer), []uint32{unix.SYS_READ}, func() { wantSet(judge(c, nil, now, nil)) })
}

// The kernel cancels a timer only where both flags ask for it (timerfd_create(2)).
func TestClockIsWatched(t *testing.T) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", openClock(t).timer))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"clockid: 0\n", "settime flags: 03\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
}

// What ends the wait is said in its own words, and what it was for.
func TestWaitSecondIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	err := openClock(t).waitSecond(ctx)
	if !errors.Is(err, enough) || err.Error() != "wait for the next second to begin: enough" {
		t.Errorf("got %v", err)
	}
}
