package freeze

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
)

func TestLockExcludes(t *testing.T) {
	ns, other := nstest.Fresh(t), nstest.Fresh(t)
	first, err := TakeLock(t.Context(), ns.Fd(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = TakeLock(t.Context(), ns.Fd(), 10*time.Millisecond)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("taken twice, of one descriptor: %v", err)
	}
	if free, err := TakeLock(t.Context(), other.Fd(), 0); err != nil {
		t.Errorf("another namespace: %v", err)
	} else if err := free.Release(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := TakeLock(ctx, ns.Fd(), time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited on: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { first.Release() })
	second, err := TakeLock(t.Context(), ns.Fd(), deadline)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Release(); err != nil {
		t.Error(err)
	}
}

var lockProgram = nstest.Program("freeze.lock", lockAndWait)

// lockAndWait takes the lock of its namespace, says so, and waits for its end.
func lockAndWait([]string) {
	ns, err := nsenter.Current()
	if err != nil {
		panic(err)
	}
	if _, err := TakeLock(context.Background(), ns.Fd(), 0); err != nil {
		panic(err)
	}
	fmt.Println("locked")
	os.Stdin.Read(make([]byte, 1))
}

// A process takes its lock with it.
func TestLockEndsWithItsProcess(t *testing.T) {
	ns := nstest.Fresh(t)
	p := nstest.Start(t, ns, lockProgram)
	readLine(t, p)
	if _, err := TakeLock(t.Context(), ns.Fd(), 0); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", p.PID())) {
		t.Errorf("taken although another process has it: %v", err)
	}
	p.Kill()
	lock, err := TakeLock(t.Context(), ns.Fd(), deadline)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
