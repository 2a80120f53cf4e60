package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A machine is this one for who is in its mount namespace, but for /etc and
// /usr/local, where changes are its own. The binary under test is in
// /usr/local/bin, as an administrator has it.
type machine struct{ pid int } // of the process that keeps the namespace

const (
	machinePath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	machineScript = "/usr/local/bin/" + hookName
	defaultConf   = "/etc/criu/default.conf"
)

// Overlays need an upper layer that is none itself.
const makeMachine = `set -e
mount -t tmpfs layer "$1"
for dir in etc usr/local; do
	mkdir -p "$1/$dir/upper" "$1/$dir/work"
	mount -t overlay layer -o "lowerdir=/$dir,upperdir=$1/$dir/upper,workdir=$1/$dir/work" "/$dir"
done
install -m 755 "$2" /usr/local/bin/ipc-cr
echo ready
exec sleep 900
`

func newMachine(t testing.TB) *machine {
	t.Helper()
	nstest.Require(t, "criu")
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", makeMachine, "sh", t.TempDir(), ipcCR(t))
	cmd.Env = append(os.Environ(), "PATH="+machinePath)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("make a machine: %q, %v", line, err)
	}
	return &machine{pid: cmd.Process.Pid}
}

// through is what a program is started with that is to be on the machine.
func (m *machine) through() []string {
	return []string{"nsenter", "--mount=/proc/" + strconv.Itoa(m.pid) + "/ns/mnt", "--"}
}

// command is a program on the machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	cmd := started(m.through(), name, args...)
	cmd.Env = append(os.Environ(), "PATH="+machinePath)
	return cmd
}

// ipcCR runs the binary there.
func (m *machine) ipcCR(args ...string) said { return saidBy(m.command("ipc-cr", args...)) }

func (m *machine) mustIPCCR(t testing.TB, args ...string) string {
	t.Helper()
	got := m.ipcCR(args...)
	if got.status != 0 || got.err != "" {
		t.Fatalf("ipc-cr %q: %+v", args, got)
	}
	return got.out
}

// path is where a file of the machine is found from outside.
func (m *machine) path(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.pid, path) }

func (m *machine) has(t testing.TB, path string) bool {
	t.Helper()
	_, err := os.Lstat(m.path(path))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

// want wants files to be there, or not to be.
func (m *machine) want(t testing.TB, there bool, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if m.has(t, path) != there {
			t.Errorf("%s is there: %t", path, !there)
		}
	}
}

// write puts a file on the machine.
func (m *machine) write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(path)), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(m.path(path))
	if err := os.WriteFile(m.path(path), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// task is something to dump there, in an IPC namespace of its own.
func (m *machine) task(t testing.TB) *task {
	t.Helper()
	null, err := os.OpenFile(m.path(os.DevNull), os.O_RDWR, 0) // of a mount that it can reach
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := m.command("sleep", "900")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + machinePath}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWIPC}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k := &task{wait: cmd.Wait}
	k.started(t, cmd, 0)
	waitFor(t, "the task", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", k.pid))
		return err == nil && strings.TrimSpace(string(text)) == "sleep"
	})
	return k
}

// A pausedDump is criu that stands in a script at pre-dump. It has read its
// configuration.
type pausedDump struct {
	cmd     *exec.Cmd
	dir, at string
	ended   chan error
}

// pausedDump dumps a task there, which runs on.
func (m *machine) pausedDump(t testing.TB) *pausedDump {
	t.Helper()
	at := t.TempDir()
	pause := filepath.Join(at, "pause")
	text := fmt.Sprintf(`#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = pre-dump ] || exit 0
: >%[1]s/reached
until [ -e %[1]s/go ]; do sleep 0.01; done
`, at)
	if err := os.WriteFile(pause, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	d := &pausedDump{dir: imagesDir(t), at: at, ended: make(chan error, 1)}
	d.cmd = m.command("criu", "dump", "--leave-running", "-t", strconv.Itoa(m.task(t).pid), "-D", d.dir, "-o", "dump.log", "-v4")
	d.cmd.Env = append(d.cmd.Env, "CRIU_CONFIG_FILE="+scriptConf(t, pause))
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	t.Cleanup(func() { writeFile(t, filepath.Join(at, "go"), "") })
	waitFor(t, "pre-dump", func() bool { _, err := os.Stat(filepath.Join(at, "reached")); return err == nil })
	return d
}

// goOn lets it go on, and wants it to succeed.
func (d *pausedDump) goOn(t testing.TB) {
	t.Helper()
	writeFile(t, filepath.Join(d.at, "go"), "")
	if err := <-d.ended; err != nil {
		t.Errorf("criu dump: %v\n%s", err, errorsIn(filepath.Join(d.dir, "dump.log")))
	}
}
