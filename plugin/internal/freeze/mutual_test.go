package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

var (
	mutualProgram = nstest.Program("freeze.mutual", mutual)
	shareProgram  = nstest.Program("freeze.share", share)
)

// mutual FILE SLOT PATH stops the tasks of the namespace at PATH over and over,
// and counts.
func mutual(args []string) {
	ns, err := nsenter.OpenPath(args[2])
	if err != nil {
		panic(err)
	}
	c := nstest.OpenCounters(args[0])
	for {
		lock, err := TakeLock(context.Background(), lockDir(), ns, deadline)
		if err != nil {
			panic(err)
		}
		s, err := All(context.Background(), ns.Inode(), Options{})
		if err != nil {
			panic(err)
		}
		s.Release()
		lock.Release()
		c.Slot[argument(args, 1)].Add(1)
	}
}

// TestEachOthers has two processes stop the tasks of the namespace that the other
// one lives in.
func TestEachOthers(t *testing.T) { inEachPlace(t, testEachOthers) }

func testEachOthers(t *testing.T) {
	one, other, c := nstest.Fresh(t), nstest.Fresh(t), newCounters(t)
	nstest.Start(t, one, mutualProgram, c.Path, "0", pathOf(other))
	nstest.Start(t, other, mutualProgram, c.Path, "1", pathOf(one))
	for slot := range 2 {
		eventually(t, fmt.Sprintf("process %d has stopped the other's 50 times", slot), func() bool { return c.Slot[slot].Load() >= 50 })
	}
}

func pathOf(ns *nsenter.Namespace) string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(ns.Fd())
}

// share PATH THREAD takes the lock of the namespace at PATH, with a thread in the
// one at THREAD, says so, and waits for its end.
func share(args []string) {
	ns, err := nsenter.OpenPath(args[0])
	if err != nil {
		panic(err)
	}
	within, err := nsenter.OpenPath(args[1])
	if err != nil {
		panic(err)
	}
	entered := make(chan struct{})
	go within.Run(func() error { close(entered); select {} })
	<-entered
	if _, err := TakeLock(context.Background(), lockDir(), ns, 0); err != nil {
		panic(err)
	}
	fmt.Println("locked")
	os.Stdin.Read(make([]byte, 1))
}

// TestLockSharesItsOwn: nobody stops the namespaces that a process's threads are
// in while it stops others, and it does not begin while somebody does.
func TestLockSharesItsOwn(t *testing.T) { inEachPlace(t, testLockSharesItsOwn) }

func testLockSharesItsOwn(t *testing.T) {
	target, home, thread := nstest.Fresh(t), nstest.Fresh(t), nstest.Fresh(t)
	p := nstest.Start(t, home, shareProgram, pathOf(target), pathOf(thread))
	readLine(t, p)
	second := nstest.Start(t, home, shareProgram, pathOf(nstest.Fresh(t)), pathOf(thread))
	if line := readLine(t, second); line != "locked" {
		t.Errorf("a second share: %q", line)
	}
	second.Kill()
	for name, ns := range map[string]*nsenter.Namespace{"its target": target, "its home": home, "its thread's": thread} {
		lock, err := TakeLock(t.Context(), lockDir(), ns, 0)
		if !errors.Is(err, ErrLocked) {
			t.Errorf("%s could be locked as well: %v", name, errors.Join(err, lock.Release()))
		}
	}
	p.Kill()
	lock, err := TakeLock(t.Context(), lockDir(), home, deadline)
	if err != nil {
		t.Fatal(err)
	}
	late := nstest.Start(t, home, shareProgram, pathOf(target), pathOf(thread))
	if line, err := late.Stdout.ReadString('\n'); err == nil {
		t.Errorf("it began although its home was being stopped: %q", line)
	}
	if free, err := TakeLock(t.Context(), lockDir(), target, time.Second); err != nil {
		t.Errorf("it kept what it had: %v", err)
	} else {
		free.Release()
	}
	lock.Release()
}

// Threads of this process that end while it looks where they are do not matter.
func TestLockWhileThreadsEnd(t *testing.T) { inEachPlace(t, testLockWhileThreadsEnd) }

func testLockWhileThreadsEnd(t *testing.T) {
	ns := nstest.Fresh(t)
	for range 4 {
		go func() {
			for t.Context().Err() == nil {
				ended := make(chan struct{})
				go onThread(func() { close(ended) })
				<-ended
			}
		}()
	}
	for range 500 {
		lock, err := TakeLock(t.Context(), lockDir(), ns, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
	}
}
