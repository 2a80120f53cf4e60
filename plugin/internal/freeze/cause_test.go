package freeze

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
)

var errOver = errors.New("somebody has had enough")

// wantCause wants the reason for which a wait was ended, what the wait was for, and
// none of the words of package context.
func wantCause(t *testing.T, err error, says ...string) {
	t.Helper()
	if !errors.Is(err, errOver) || strings.Contains(err.Error(), "context") {
		t.Errorf("err = %v, want %q alone", err, errOver)
		return
	}
	for _, word := range says {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("err = %v, want %q in it", err, word)
		}
	}
}

// The task that does not stop is named, and how long it was waited for.
func TestCauseWhileATaskDoesNotStop(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	l := newLease(t)
	p := nstest.Start(t, ns, vforkProgram, c.Path, l.Name(), fmt.Sprint(unix.CLONE_NEWIPC))
	l.waitOpened(t)
	const limit = 100 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errOver)
	defer cancel()
	began := time.Now()
	_, err := All(ctx, ns.Inode(), Options{Timeout: deadline})
	if took := time.Since(began); took < limit {
		t.Errorf("took %v", took)
	}
	wantCause(t, err, "stop the tasks of "+ns.Link()+": after ", "ms, in round 1 over /proc: task ", fmt.Sprintf("(pid %d, ", p.PID()), "had not stopped: ")
	l.Close()
	readLine(t, p)
	mustBeFree(t, ns.Inode())
}

// So is the look through /proc, where that was not over.
func TestCauseWhileTasksAreLookedFor(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "0")
	c.waitMoved(t, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := All(ctx, ns.Inode(), Options{Exempt: func(int) bool { cancel(errOver); return false }})
	wantCause(t, err, "stop the tasks of "+ns.Link()+": after ", ", in round ", " over /proc: ")
	mustBeFree(t, ns.Inode())
}

// And who has the lock that is waited for.
func TestCauseWhileLocked(t *testing.T) { inEachPlace(t, testCauseWhileLocked) }

func testCauseWhileLocked(t *testing.T) {
	ns := nstest.Fresh(t)
	dir := lockDir()
	first, err := TakeLock(t.Context(), dir, ns, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errOver)
	defer cancel()
	_, err = TakeLock(ctx, dir, ns, time.Minute)
	wantCause(t, err, fmt.Sprintf("wait for process %d (", os.Getpid()), "which stops the tasks of "+ns.Link())
	if err := first.Release(); err != nil {
		t.Error(err)
	}
}
