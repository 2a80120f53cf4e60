package warden

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

const stranger = 65534

// asStranger runs fn with another effective uid, on a thread that is thrown away.
func asStranger(t *testing.T, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		same := ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, stranger, same); errno != 0 {
			done <- errno
			return
		}
		done <- fn()
	}()
	must(t, <-done)
}

// plantSocket listens where a warden would, as the test itself or a stranger.
func plantSocket(t *testing.T, dir *state.Dir, criu state.Process, foreign bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName(criu))
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	listen := func() error { return unix.Listen(fd, 5) } // SO_PEERCRED is who listened
	if foreign {
		asStranger(t, listen)
	} else {
		must(t, listen())
	}
}

func plantNote(t *testing.T, dir *state.Dir, criu, warden state.Process) {
	t.Helper()
	n, err := newNote(criu, warden)
	must(t, err)
	content, err := n.encode()
	must(t, err)
	must(t, dir.Create(noteName(criu), content))
}

func TestStrangersSocket(t *testing.T) {
	nstest.Require(t, "root")
	dir := tempState(t)
	criu := startCRIU(t, dir)
	plantNote(t, dir, criu.id, lookup(t, os.Getpid()))
	plantSocket(t, dir, criu.id, true)
	if _, err := Find(criu.id, dir); !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("find: %v, want ErrUntrusted", err)
	}
	if _, err := Start(criu.id, dir); !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("start: %v, want ErrUntrusted", err)
	}
}

// A process of ours that is not the one that the note names.
func TestAnotherProcessesSocket(t *testing.T) {
	dir := tempState(t)
	criu := startCRIU(t, dir)
	plantNote(t, dir, criu.id, criu.id)
	plantSocket(t, dir, criu.id, false)
	if _, err := Find(criu.id, dir); !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("find: %v, want ErrUntrusted", err)
	}
}

func TestStrangersNote(t *testing.T) {
	nstest.Require(t, "root")
	dir := tempState(t)
	criu := startCRIU(t, dir)
	plantNote(t, dir, criu.id, lookup(t, os.Getpid()))
	path := dir.Join(noteName(criu.id))
	must(t, os.Chown(path, stranger, stranger))
	if _, err := Find(criu.id, dir); !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("find: %v, want ErrUntrusted", err)
	}
	if _, err := Start(criu.id, dir); !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("start: %v, want ErrUntrusted", err)
	}
	criu.Kill()
	if r := recoverNow(dir); len(r.Warnings) != 1 || len(r.Done) != 0 {
		t.Errorf("recovery %+v, want a warning", r)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// The state directory is closed to strangers, and so is the warden.
func TestStrangerAtTheSocket(t *testing.T) {
	nstest.Require(t, "root")
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	for path := dir.Path(); path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		must(t, os.Chmod(path, 0o777))
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName(w.criu))
	must(t, os.Chmod(path, 0o777))
	var answer []byte
	asStranger(t, func() error {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = sendLine(conn, request{Do: doEnd})
		answer = make([]byte, 100)
		n, _ := conn.Read(answer)
		answer = answer[:n]
		return nil
	})
	if len(answer) != 0 {
		t.Errorf("answered %q", answer)
	}
	must(t, os.Chmod(dir.Path(), 0o700))
	mustBeAside(t, w)
}

func TestNoStateDirectory(t *testing.T) {
	dir := tempState(t)
	criu := startCRIU(t, dir)
	if _, err := Find(criu.id, nil); !errors.Is(err, state.ErrNowhere) {
		t.Errorf("find: %v, want ErrNowhere", err)
	}
	if _, err := Start(criu.id, nil); !errors.Is(err, state.ErrNowhere) {
		t.Errorf("start: %v, want ErrNowhere", err)
	}
	// Removed while it is open: what is made in its place is not seen from here.
	must(t, os.RemoveAll(dir.Path()))
	if _, err := Find(criu.id, dir); !errors.Is(err, ErrNone) {
		t.Errorf("find: %v, want ErrNone", err)
	}
	if w, err := Start(criu.id, dir); !errors.Is(err, ErrNone) {
		t.Errorf("started %+v that nobody finds: %v, want ErrNone", w, err)
	}
	remade, err := state.Open(dir.Path())
	must(t, err)
	defer remade.Close()
	until(t, "the warden that nobody finds has ended", func() bool {
		_, err := Find(criu.id, remade)
		return errors.Is(err, ErrKilled) || errors.Is(err, ErrNone)
	})
	w := criu.start(t, remade)
	must(t, w.End())
}

// What is no request is answered or hung up on, and changes nothing.
func TestGarbageAtTheSocket(t *testing.T) {
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	for _, line := range []string{"", "{", "{}\n", `{"do":"format disk"}` + "\n", `{"do":"ping","more":1}` + "\n", "{}{}\n",
		`{"do":"hold"}` + "\n", `{"do":"set aside","names":["ipcns-msg-1.img"]}` + "\n", string(make([]byte, maxLine+1))} {
		conn, err := w.dial(t.Context())
		must(t, err)
		_, _ = conn.Write([]byte(line))
		must(t, conn.CloseWrite())
		_, _ = conn.Read(make([]byte, 100))
		must(t, conn.Close())
	}
	mustBeAside(t, w)
	if _, err := w.Let(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("let: %v, want ErrNotHeld", err)
	}
}
