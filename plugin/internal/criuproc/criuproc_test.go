package criuproc

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// script is the one that the tests ask about, in a directory of its own.
func script(t *testing.T) Script {
	t.Helper()
	return Script{Path: filepath.Join(t.TempDir(), "hook"), Binary: "/usr/bin/ipc-cr"}
}

// copyOf copies a program under another name.
func copyOf(t *testing.T, program, name string) string {
	t.Helper()
	from, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts a process that ends with the test, and waits until it is the
// program that it is to be.
func start(t *testing.T, cmd *exec.Cmd) (pid int) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// found returns the process with a pid among those that Find finds.
func found(t *testing.T, script Script, pid int) (Process, bool) {
	t.Helper()
	w, err := Find(script)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range w.Left() {
		if p.PID == pid {
			return p, true
		}
	}
	return Process{}, false
}

// eventually polls until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// loaderOf is the loader that a program asks for.
func loaderOf(t *testing.T, program string) string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(p.Open())
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimRight(string(text), "\x00")
		}
	}
	t.Fatalf("%s asks for no loader: it is linked statically, which copies of no other criu are", program)
	return ""
}

// A criu is known by its file, whatever it calls itself, and nothing else is one.
// What it does stands behind what loads it.
func TestFind(t *testing.T) {
	nstest.Require(t, "userns")
	criu, other := copyOf(t, "sleep", name), copyOf(t, "sleep", "criu-ns")
	ipcCR := copyOf(t, "sleep", "ipc-cr")
	gone := copyOf(t, "sleep", name)
	for name, c := range map[string]struct {
		program string
		args    []string
		after   func() error
		want    bool
	}{
		"criu":                     {criu, []string{"criu", "900"}, nil, true},
		"by another name":          {criu, []string{"innocent\n", "900"}, nil, true},
		"by a loader":              {loaderOf(t, criu), []string{"ld", criu, "900"}, nil, true},
		"removed since":            {gone, []string{"criu", "900"}, func() error { return os.Remove(gone) }, true},
		"ipc-cr by its name":       {ipcCR, []string{"/usr/local/sbin/criu", "900"}, nil, true},
		"ipc-cr as itself":         {ipcCR, []string{"ipc-cr", "900"}, nil, false},
		"something by its name":    {other, []string{"criu", "900"}, nil, false},
		"something called with it": {other, []string{"criu-ns", "900"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			pid := start(t, &exec.Cmd{Path: c.program, Args: c.args})
			if c.after != nil {
				if err := c.after(); err != nil {
					t.Fatal(err)
				}
			}
			var got Process
			is := false
			if c.want { // a loader maps the program a moment after it began
				eventually(t, "found", func() bool { got, is = found(t, script(t), pid); return is })
			} else {
				got, is = found(t, script(t), pid)
			}
			if want := strings.TrimPrefix(strings.Join(c.args, " "), "ld "); is != c.want || is && got.Command != want {
				t.Errorf("%+v, %t, want %t and %q", got, is, c.want, want)
			}
		})
	}
}

// A command line is anybody's text, and may be long.
func TestCommandIsBounded(t *testing.T) {
	nstest.Require(t, "userns")
	pid := start(t, &exec.Cmd{Path: copyOf(t, "sh", name), Args: []string{"criu", "-c", "read a; : " + strings.Repeat("x", 100000)}, Stdin: endless(t)})
	p, is := found(t, script(t), pid)
	if !is || len(p.Command) != maxCommand || !strings.HasPrefix(p.Command, "criu -c read a; : xxx") {
		t.Errorf("%t, %d bytes: %q", is, len(p.Command), p.Command)
	}
}

// endless is a stdin that stays open until the test ends.
func endless(t *testing.T) io.Reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}

// A process that could not dump anything is none, so that no user keeps an
// administrator waiting; nor is one in a user namespace, which everybody can make.
func TestWithoutPrivilege(t *testing.T) {
	nstest.Require(t, "root")
	criu := copyOf(t, "sleep", name)
	for dir := filepath.Dir(criu); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self := []syscall.SysProcIDMap{{Size: 1}}
	for name, c := range map[string]struct {
		attr *syscall.SysProcAttr
		want bool
	}{
		"root":             {&syscall.SysProcAttr{}, true},
		"a user":           {&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, false},
		"a user who may":   {&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: []uintptr{unix.CAP_CHECKPOINT_RESTORE}}, true},
		"a user who can":   {&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}}, false},
		"a user namespace": {&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: self, GidMappings: self}, false},
	} {
		pid := start(t, &exec.Cmd{Path: criu, Args: []string{"criu", "900"}, SysProcAttr: c.attr})
		if p, is := found(t, script(t), pid); is != c.want {
			t.Errorf("%s: %+v, %t", name, p, is)
		}
	}
}

// What package infront has noted is a criu, even while it is a shell.
func TestNoted(t *testing.T) {
	nstest.Require(t, "userns")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // for others than root
	dir, err := state.Default()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "900")
	pid := start(t, cmd)
	if p, is := found(t, script(t), pid); is {
		t.Fatalf("before: %+v", p)
	}
	id, err := state.Lookup(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Create(beside.Name(id), nil); err != nil {
		t.Fatal(err)
	}
	defer dir.Remove(beside.Name(id))
	if p, is := found(t, script(t), pid); !is || p.Command != "sleep 900" {
		t.Errorf("noted: %+v, %t", p, is)
	}
}

// A Watch ends with the last of those that it began with and what they forked, and
// does not wait for others.
func TestWatch(t *testing.T) {
	nstest.Require(t, "userns")
	sh, dir, s := copyOf(t, "sh", name), t.TempDir(), script(t)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // also if the test fails: the child opens it, and finds its end
		if f, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
			f.Close()
		}
	})
	// As criu service does: it forks for a request, and may end before that.
	cmd := exec.Command(sh, "-c", "read request; { read end; } <"+fifo+" & echo $!; read end", "criu")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	service := start(t, cmd)
	eventually(t, "criu is found", func() bool { _, is := found(t, s, service); return is })
	w, err := Find(s)
	if err != nil {
		t.Fatal(err)
	}
	w.left = slices.DeleteFunc(w.left, func(p Process) bool { return p.PID != service }) // others' on this machine
	later := start(t, &exec.Cmd{Path: sh, Args: []string{"criu", "-c", "read a"}, Stdin: endless(t)})
	if _, err := io.WriteString(in, "request\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	pids := func() (list []int) {
		for _, p := range w.Left() {
			list = append(list, p.PID)
		}
		return list
	}
	if got := pids(); !slices.Equal(got, []int{service, child}) {
		t.Errorf("left: %v, want %d and %d, not %d", got, service, child, later)
	}
	in.Close()
	eventually(t, "the service ends", func() bool { return slices.Equal(pids(), []int{child}) })

	short, cancel := context.WithTimeout(t.Context(), 3*again)
	defer cancel()
	if err := w.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the child runs: %v", err)
	}
	why := errors.New("why it was given up")
	given, giveUp := context.WithCancelCause(t.Context())
	giveUp(why)
	if err := w.Wait(given); !errors.Is(err, why) {
		t.Errorf("given up: %v, want %v", err, why)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Wait(t.Context()) }()
	if err := os.WriteFile(fifo, []byte("end\n"), 0); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil || len(w.Left()) > 0 {
			t.Errorf("%v, left %v", err, w.Left())
		}
	case <-time.After(30 * time.Second):
		t.Error("waits for what has ended")
	}
}

// A process that does not let itself be looked at does not keep the caller: here
// its memory map is one that nobody answers for.
func TestLookInTime(t *testing.T) {
	nstest.Try(t, func() error { return lookInTime(t) })
}

func lookInTime(t *testing.T) error {
	t.Helper()
	proc := t.TempDir()
	l := &looker{proc: proc, script: "/x", binary: "ipc-cr"}
	if err := os.MkdirAll(filepath.Join(proc, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	maps := l.file(7, "maps")
	if err := errors.Join(os.Symlink("/usr/bin/loader", l.file(7, "exe")), unix.Mkfifo(maps, 0o600)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got, inTime := l.look(7, false)
	took := time.Since(began)
	if inTime || got.criu || took < patience {
		t.Errorf("%+v, in time %t, after %v", got, inTime, took)
	}
	if err := os.WriteFile(maps, nil, 0); err != nil { // which lets it go
		t.Fatal(err)
	}
	if took > 10*patience {
		return fmt.Errorf("it took %v, want %v", took, patience)
	}
	return nil
}
