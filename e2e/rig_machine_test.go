package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
