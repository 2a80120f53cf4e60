package nstest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"golang.org/x/sys/unix"
)

// Process is a program of the test binary that runs beside the test. It is
// killed at the end of the test if it still runs, and what it wrote to stderr
// is logged.
type Process struct {
	Stdin  io.WriteCloser
	Stdout *bufio.Reader

	cmd    *exec.Cmd
	stderr bytes.Buffer
	leash  *os.File
	out    *os.File
	wait   func() error
}

// Start runs the program registered under name in the IPC namespace ns, nil for
// the test's own. Privileges are those of ns.Run.
func Start(t testing.TB, ns *nsenter.Namespace, name string, args ...string) *Process {
	t.Helper()
	return start(t, ns, nil, name, args)
}

// StartIn is Start with attributes of the process, as further namespaces of its own.
func StartIn(t testing.TB, attr *syscall.SysProcAttr, name string, args ...string) *Process {
	t.Helper()
	return start(t, nil, attr, name, args)
}

// StartInUserNS runs the program registered under name in a fresh user
// namespace and an IPC namespace that it owns, as the first id of the first
// extent; that must be 0 for it to have any capability. Outside ids are the
// test's. No extent stands for 0 to 999 on 100000 to 100999 where the test can
// map those, else for 0 on the test's own user. It calls Require(t, "userns").
func StartInUserNS(t testing.TB, extents []nsenter.Extent, name string, args ...string) *Process {
	t.Helper()
	Require(t, "userns")
	if len(extents) == 0 {
		extents = defaultExtents()
	}
	return start(t, nil, userNamespace(extents), name, args)
}

// StartUnmapped is StartInUserNS in a user namespace whose maps are not written
// yet, and leaves the program its ids as they are shown there.
func StartUnmapped(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	Require(t, "userns")
	return start(t, nil, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWIPC}, name, args)
}

// InUserNS starts a process that only waits, as StartInUserNS does, and returns
// its pid. It is killed at the end of the test.
func InUserNS(t testing.TB, extents ...nsenter.Extent) int {
	t.Helper()
	return StartInUserNS(t, extents, waitProgram).PID()
}

// PID returns the process's pid as the test sees it.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait waits for the process to end; its error is that of exec.Cmd.Wait. What
// it wrote can be read from Stdout afterwards too.
func (p *Process) Wait() error { return p.wait() }

// Stop closes Stdin and waits.
func (p *Process) Stop() error {
	p.Stdin.Close()
	return p.Wait()
}

// Kill kills the process and waits for its end.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	p.Wait()
}

func start(t testing.TB, ns *nsenter.Namespace, attr *syscall.SysProcAttr, name string, args []string) *Process {
	t.Helper()
	if _, ok := programs[name]; !ok {
		t.Fatalf("nstest: no program %q is registered", name)
	}
	p, err := newProcess(name, args)
	if err != nil {
		t.Fatalf("nstest: prepare %s: %v", name, err)
	}
	p.cmd.SysProcAttr = attr
	if err := p.start(ns); err != nil {
		p.closePipes()
		t.Fatalf("nstest: start %s: %v", name, err)
	}
	t.Cleanup(func() { p.end(t, name) })
	return p
}

// newProcess starts the binary by its magic link: a mapped root need not be
// able to search the directories that lead to it.
func newProcess(name string, args []string) (*Process, error) {
	p := &Process{cmd: exec.Command("/proc/self/exe", args...)}
	p.cmd.Env = append(os.Environ(), programEnv+"="+name)
	if _, set := os.LookupEnv("GORACE"); !set {
		p.cmd.Env = append(p.cmd.Env, "GORACE=atexit_sleep_ms=0") // the detector waits a second by default
	}
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = 5 * time.Second // a grandchild may hold stderr
	p.wait = sync.OnceValue(p.cmd.Wait)
	var err error
	if p.Stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Process) start(ns *nsenter.Namespace) error {
	out, childOut, err := os.Pipe()
	if err != nil {
		return err
	}
	defer childOut.Close()
	p.out, p.Stdout, p.cmd.Stdout = out, bufio.NewReader(out), childOut
	childLeash, leash, err := os.Pipe()
	if err != nil {
		return err
	}
	defer childLeash.Close()
	p.leash, p.cmd.ExtraFiles = leash, []*os.File{childLeash}
	if ns == nil {
		return p.cmd.Start()
	}
	return ns.Run(p.cmd.Start) // a child is born in its thread's namespace
}

func (p *Process) end(t testing.TB, name string) {
	p.Kill()
	p.closePipes()
	if p.stderr.Len() > 0 {
		t.Logf("stderr of %s:\n%s", name, p.stderr.Bytes())
	}
}

func (p *Process) closePipes() {
	for _, f := range []*os.File{p.out, p.leash} {
		if f != nil {
			f.Close()
		}
	}
	p.Stdin.Close()
}

// userNamespace maps the extents for users and groups alike. The credential is
// set because the test's own user may have no id in there.
func userNamespace(extents []nsenter.Extent) *syscall.SysProcAttr {
	var maps []syscall.SysProcIDMap
	for _, e := range extents {
		maps = append(maps, syscall.SysProcIDMap{ContainerID: int(e.Inside), HostID: int(e.Outside), Size: int(e.Count)})
	}
	first := extents[0].Inside
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWIPC,
		UidMappings: maps,
		GidMappings: maps,
		Credential:  &syscall.Credential{Uid: first, Gid: first, NoSetGroups: true},
	}
}

func defaultExtents() []nsenter.Extent {
	if mapped(100000) && mapped(100999) {
		return []nsenter.Extent{{Inside: 0, Outside: 100000, Count: 1000}}
	}
	return []nsenter.Extent{{Inside: 0, Outside: uint32(os.Geteuid()), Count: 1}}
}

// mapped reports whether id exists in the test's own user namespace.
func mapped(id uint32) bool {
	n, err := nsenter.New()
	if err != nil {
		return false
	}
	defer n.Close()
	owner, err := n.Owner()
	if err != nil {
		return false
	}
	_, uid := owner.UIDs.In(id)
	_, gid := owner.GIDs.In(id)
	return uid && gid
}

// Fresh makes an IPC namespace that is closed at the end of the test. It calls
// Require(t, "userns").
func Fresh(t testing.TB) *nsenter.Namespace {
	t.Helper()
	Require(t, "userns")
	n, err := nsenter.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return n
}
