package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// lockDirEnv is the state directory of a test and of the programs it starts.
const lockDirEnv = "IPC_CR_TEST_LOCK_DIR"

// inEachPlace runs a test of locks with a state directory, and without one.
func inEachPlace(t *testing.T, test func(t *testing.T)) {
	t.Run("state directory", func(t *testing.T) {
		t.Setenv(lockDirEnv, filepath.Join(t.TempDir(), "state"))
		test(t)
	})
	t.Run("none", func(t *testing.T) {
		t.Setenv(lockDirEnv, "")
		test(t)
	})
}

// lockDir opens the state directory, nil without one. It stays open: so does what
// is locked.
func lockDir() *state.Dir {
	path := os.Getenv(lockDirEnv)
	if path == "" {
		return nil
	}
	dir, err := state.Open(path)
	if err != nil {
		panic(err)
	}
	return dir
}

func TestLockExcludes(t *testing.T) { inEachPlace(t, testLockExcludes) }

func testLockExcludes(t *testing.T) {
	ns, other := nstest.Fresh(t), nstest.Fresh(t)
	first, err := TakeLock(t.Context(), lockDir(), ns, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = TakeLock(t.Context(), lockDir(), ns, 10*time.Millisecond)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("taken twice, of one descriptor: %v", err)
	}
	if free, err := TakeLock(t.Context(), lockDir(), other, 0); err != nil {
		t.Errorf("another namespace: %v", err)
	} else if err := free.Release(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := TakeLock(ctx, lockDir(), ns, time.Minute); !errors.Is(err, context.DeadlineExceeded) ||
		!strings.Contains(err.Error(), fmt.Sprintf("wait for process %d (", os.Getpid())) {
		t.Errorf("waited on, or without whom it waited for: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { first.Release() })
	second, err := TakeLock(t.Context(), lockDir(), ns, deadline)
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
	if _, err := TakeLock(context.Background(), lockDir(), ns, 0); err != nil {
		panic(err)
	}
	fmt.Println("locked")
	os.Stdin.Read(make([]byte, 1))
}

// A process takes its lock with it.
func TestLockEndsWithItsProcess(t *testing.T) { inEachPlace(t, testLockEndsWithItsProcess) }

func testLockEndsWithItsProcess(t *testing.T) {
	ns := nstest.Fresh(t)
	p := nstest.Start(t, ns, lockProgram)
	readLine(t, p)
	if _, err := TakeLock(t.Context(), lockDir(), ns, 0); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", p.PID())) {
		t.Errorf("taken although another process has it: %v", err)
	}
	p.Kill()
	lock, err := TakeLock(t.Context(), lockDir(), ns, deadline)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

// tenant holds the lock of its namespace's own file, as every process in it can.
var tenantProgram = nstest.Program("freeze.tenant", func([]string) {
	file, err := os.Open("/proc/self/ns/ipc")
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("locked")
	os.Stdin.Read(make([]byte, 1))
})

// A process of the namespace cannot keep others from stopping it.
func TestTenantLocksInVain(t *testing.T) {
	ns := nstest.Fresh(t)
	readLine(t, nstest.Start(t, ns, tenantProgram))
	t.Setenv(lockDirEnv, filepath.Join(t.TempDir(), "state"))
	lock, err := TakeLock(t.Context(), lockDir(), ns, 0)
	if err != nil {
		t.Error(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
	// Without a state directory only for longer than another ipc-cr would.
	wants, err := wantsOf(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(wants, ns)
	place := &nsfsPlace{patience: 50 * time.Millisecond}
	began := time.Now()
	if err := new(Lock).wait(t.Context(), place, wants, deadline); err != nil || time.Since(began) < place.patience {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if err := new(Lock).wait(t.Context(), place, wants, 10*time.Millisecond); !errors.Is(err, ErrLocked) {
		t.Errorf("%v, want ErrLocked for less patience than that", err)
	}
}
