package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// processName is argv[0] of a guard, by which the binary knows what it is to be.
const processName = "ipc-cr-guard"

// The descriptors of a guard beside stdio.
const (
	lineFD      = 3 // its end of the socket
	namespaceFD = 4 // the IPC namespace
)

// child is a guard as its parent sees it.
type child struct {
	process *os.Process
	line    line
}

// spawn starts a guard with the namespace that the descriptor ns is open on.
//
// It must run on a thread that sits in none but the process's own namespaces
// and has its credentials: the child inherits both from the thread. A guard in
// the container's namespace would keep it alive and be frozen with its tasks.
func spawn(ns int) (*child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	space, err := duplicate(ns)
	if err != nil {
		return nil, err
	}
	defer space.Close()
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	// The binary may have been replaced or removed since it was started: its
	// path is no way to it, /proc/self/exe is (proc(5)).
	process, err := os.StartProcess("/proc/self/exe", []string{processName}, &os.ProcAttr{
		Dir:   "/",
		Env:   environment(),
		Files: []*os.File{null, null, null, theirs, space},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return &child{process: process, line: line{file: ours, in: bufio.NewReader(ours)}}, nil
}

// environment is as good as empty. The Go runtime would keep its cgroup's files
// open (runtime/cgroup_linux.go), whose file system nobody could unmount then.
// LD_LIBRARY_PATH is what a dynamically linked program that uses this package
// may need to start at all.
func environment() []string {
	env := []string{"GODEBUG=containermaxprocs=0"}
	if path, set := os.LookupEnv("LD_LIBRARY_PATH"); set {
		env = append(env, "LD_LIBRARY_PATH="+path)
	}
	return env
}

func duplicate(fd int) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the ipc namespace's descriptor: %w", err)
	}
	return os.NewFile(uintptr(dup), "ipc namespace"), nil
}

// socketpair returns a non-blocking end for this process, whose waits have
// deadlines, and a blocking one for the guard, which only ever waits.
func socketpair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(pair[0]), unix.Close(pair[1]))
	}
	return os.NewFile(uintptr(pair[0]), "guard"), os.NewFile(uintptr(pair[1]), "guard's end"), nil
}

// release lets the guard go and reaps it. One that somebody has stopped, or
// that is dead already, is killed: nothing is left for it to do.
func (c *child) release() {
	if c.line.hangUp() != nil {
		_ = c.process.Kill() // through a pidfd: never another process
	}
	_, _ = c.process.Wait() // ECHILD where the program reaps every child itself
	_ = c.line.file.Close()
}
