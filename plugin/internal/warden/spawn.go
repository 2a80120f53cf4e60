package warden

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// processName is argv[0] of a warden, by which the binary knows what it is to be.
const processName = "ipc-cr-warden"

// lineFD is a warden's socket to the process that started it.
const lineFD = 3

// errThere says that CRIU process has another warden, alive.
var errThere = errors.New("there is one already")

// Start returns the warden of a CRIU process, which must be alive, and starts
// one if there is none. Where one was killed the new one takes over what is set
// aside, never the tasks: those ran meanwhile, see ErrNotHeld.
//
// dir must stay open as long as the Warden is used. state.ErrNowhere without one.
func Start(criu state.Process, dir *state.Dir) (*Warden, error) {
	w, err := Find(criu, dir)
	if !errors.Is(err, ErrNone) && !errors.Is(err, ErrKilled) {
		return w, err
	}
	c, err := detached(func() (*child, error) { return spawn(birth{StateDir: dir.Path(), CRIU: criu}) })
	if err != nil && !errors.Is(err, errThere) {
		return nil, fmt.Errorf("start a warden for CRIU, %s: %w", criu, err)
	}
	w, err = Find(criu, dir)
	if err == nil && c != nil && c.process.Pid == w.PID() {
		w.reaped = c.reaped
		return w, nil
	}
	if c != nil {
		_ = c.process.Kill() // where the state directory is another one by now: nobody can talk to it
	}
	return w, err
}

// detached runs fn on a thread of the process's own namespaces and credentials:
// the caller's may be inside a container's. The runtime never clones a new
// thread from a locked one.
func detached(fn func() (*child, error)) (c *child, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err = fn()
	}()
	<-done
	return c, err
}

// child is a warden that this process has started.
type child struct {
	process *os.Process
	reaped  chan struct{}
}

// spawn starts a warden and waits until it can be found. It must run detached:
// the child inherits namespaces and credentials from the thread.
func spawn(b birth) (*child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	// The binary may have been replaced or removed since it was started: its
	// path is no way to it, /proc/self/exe is (proc(5)).
	process, err := os.StartProcess("/proc/self/exe", []string{processName}, &os.ProcAttr{
		Dir:   "/",
		Env:   environment(),
		Files: []*os.File{null, null, null, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	c := &child{process: process, reaped: make(chan struct{})}
	go func() {
		_, _ = process.Wait() // ECHILD where the program reaps every child itself
		close(c.reaped)
	}()
	if err := introduce(ours, b, startTimeout); err != nil {
		_ = process.Kill() // through a pidfd: never another process
		<-c.reaped
		return nil, err
	}
	return c, nil
}

// introduce tells a starting warden what it is and waits until it is.
func introduce(line *net.UnixConn, b birth, within time.Duration) error {
	if err := line.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if err := sendLine(line, b); err != nil {
		return late(err, "not to be told what it is", within)
	}
	text, err := bufio.NewReader(line).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("its answer: %w", late(err, "none", within))
	}
	var answer reply
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("its answer %.80q: %w", text, err)
	}
	return answer.Failure.err()
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

func socketpair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "warden's end")
	ours, err = unixConn(os.NewFile(uintptr(pair[0]), "warden"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// unixConn makes a connection of a socket's file, which it closes.
func unixConn(file *os.File) (*net.UnixConn, error) {
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	stream, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), conn.Close())
	}
	return stream, nil
}
