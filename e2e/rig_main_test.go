// Package e2e_test drives the built binary together with criu, runc, crun and
// podman, as root. The files named rig_*_test.go are the rig: they start and
// stop things and read the kernel and CRIU's files by means of their own, so
// that nothing under test vouches for itself. What needs no other program is
// tested beside its package instead.
package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) {
	if _, ok := os.LookupEnv(taskEnv); ok {
		os.Exit(runTask())
	}
	if _, ok := os.LookupEnv(workerEnv); ok {
		os.Exit(runWorker())
	}
	if _, ok := os.LookupEnv(hiddenEnv); ok {
		os.Exit(runHidden())
	}
	nstest.MainInMounts(m, hideSettings)
}

// hideSettings puts a copy of /etc in its place, without what this machine's criu and
// ipc-cr are told to do there. A copy, as tests lay overlays over it, which would show
// what is hidden below other mounts. /run/ipc-cr is the tests' own as well: what others
// note there is not theirs.
func hideSettings() error {
	out, err := exec.Command("sh", "-c", hidingSettings, "sh").CombinedOutput()
	if err != nil {
		return fmt.Errorf("hide the settings of criu and ipc-cr: %w: %s", err, out)
	}
	return nil
}

const hidingSettings = `set -e
at=$(mktemp -d)
mount -t tmpfs -o mode=0755 etc "$at"
cp -a /etc/. "$at"
rm -rf "$at/criu" "$at/ipc-cr"
mount --move "$at" /etc
rmdir "$at"
mkdir -p -m 700 /run/ipc-cr
mount -t tmpfs -o mode=0700 state /run/ipc-cr
if [ -d "$HOME/.criu" ]; then mount -t tmpfs empty "$HOME/.criu"; fi
`

// patience is how long the rig waits for what takes milliseconds on an idle machine.
const patience = 30 * time.Second

// waitFor polls until done; what says what was waited for.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// command runs a program that must succeed and returns its output.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// shared returns a directory that goes with the test process, however that
// ends. The mapped root of a user namespace can search it, unlike t.TempDir's.
func shared(t testing.TB) string {
	t.Helper()
	dir, err := sharedDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var sharedDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ipc-cr-e2e-")
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.Chmod(dir, 0o755), removeAfterUs(dir))
})

// ourEnds are closed by the kernel when this process is gone.
var ourEnds []io.Closer

func removeAfterUs(dir string) error {
	cmd := exec.Command("setsid", "sh", "-c", `cat >/dev/null; rm -rf -- "$0"`, dir)
	cmd.Dir = "/"
	end, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	ourEnds = append(ourEnds, end)
	return cmd.Start()
}

// ipcCR returns the path of the binary under test, built once a test run.
func ipcCR(t testing.TB) string {
	t.Helper()
	dir := shared(t)
	if err := buildIPCCR(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "ipc-cr")
}

var buildIPCCR = sync.OnceValue(func() error { return build("ipc-cr", "github.com/ipc-cr/ipc-cr/cmd/ipc-cr") })

// build makes a program that needs no library into the directory that the tests
// share.
func build(name, from string) error {
	dir, err := sharedDir()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), from)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}
