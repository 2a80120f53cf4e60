package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// TestUnreadable stops as a user who may not even see whose tasks they are.
func TestUnreadable(t *testing.T) {
	nstest.Require(t, "root")
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "1", "3")
	c.waitMoved(t, 1)
	cmd := exec.Command("/proc/self/exe", fmt.Sprint(ns.Inode()))
	cmd.Env = append(os.Environ(), "IPC_CR_NSTEST_PROGRAM="+freezeProgram)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	leash, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	cmd.ExtraFiles = []*os.File{leash}
	out, err := cmd.Output() // no stdin: it lets go at once
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), `held {"Tasks":0,`) || strings.Contains(string(out), `"Unreadable":0`) {
		t.Errorf("program said %q, want no task held and some unreadable", out)
	}
	c.waitMoved(t, 1)
}

// TestNoRight has a task that the kernel refuses whoever asks: one of our own
// threads is visible, but not ours to trace.
func TestNoRight(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	entered, leave := make(chan int), make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- ns.Run(func() error { entered <- unix.Gettid(); <-leave; return nil })
	}()
	tid := <-entered
	proc, err := openProc()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	h := newHolder(proc, ns.Inode(), Options{Timeout: 100 * time.Millisecond}) // of ours we may read the memory
	h.seize(h.add(&member{tid: tid, pid: h.self}))
	_, err = h.settle(context.Background())
	h.release()
	var blamed *TaskError
	if !errors.As(err, &blamed) || blamed.Task.TID != tid || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
		t.Errorf("err = %v, want EPERM of tid %d that names CAP_SYS_PTRACE", err, tid)
	}
	// All itself leaves our threads alone, and says so.
	s, err := All(context.Background(), ns.Inode(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if loose := s.Report().Loose; len(loose) != 1 || loose[0].TID != tid || loose[0].Why != WhySelf {
		t.Errorf("loose: %+v, want tid %d alone", loose, tid)
	}
	mustRelease(t, s)
	close(leave)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

var offMainProgram = nstest.Program("freeze.offmain", offMain)

// The program needs the first thread for its main goroutine.
func init() {
	if os.Getenv("IPC_CR_NSTEST_PROGRAM") == "freeze.offmain" {
		runtime.LockOSThread()
	}
}

// offMain calls runOffMain on the first thread, which never ends.
func offMain([]string) {
	tids := make(chan int, 1)
	runOffMain(func() { tids <- unix.Gettid() })
	tid := <-tids
	for unix.Tgkill(os.Getpid(), tid, 0) == nil && tid != os.Getpid() {
		runtime.Gosched()
	}
	fmt.Println(unix.Gettid() == os.Getpid(), tid != os.Getpid())
}

func TestNotOnFirstThread(t *testing.T) {
	p := nstest.Start(t, nil, offMainProgram)
	if line := readLine(t, p); line != "true true" {
		t.Errorf("called on the first thread, run on another that ended: %s, want true true", line)
	}
}
