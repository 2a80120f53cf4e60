package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

const theHost = "the host's IPC namespace (ipc:[4026531839])"

// inHost returns what leads into the host's IPC namespace: the pid of any process
// that is in no container, as this one's.
func inHost(t *testing.T) (pid string) {
	t.Helper()
	nstest.Require(t, "host")
	return strconv.Itoa(os.Getpid())
}

// Every report of the host's namespace says that it is the host's.
func TestReportsNameTheHost(t *testing.T) {
	pid, dir := inHost(t), t.TempDir()
	if out, want := mustRun(t, "checkpoint", "--pid", pid, "-D", dir), "checkpointed "+theHost+" to "; !strings.HasPrefix(out, want) {
		t.Errorf("%q, want %q", out, want)
	}
	if out, want := mustRun(t, "show", dir), "checkpoint of "+theHost+" on "; !strings.Contains(out, want) {
		t.Errorf("%q, want %q", out, want)
	}
	var report struct{ Host bool }
	out := mustRun(t, "checkpoint", "--pid", pid, "-D", filepath.Join(dir, "json"), "--json")
	if err := json.Unmarshal([]byte(out), &report); err != nil || !report.Host {
		t.Errorf("%v: no host in %s", err, out)
	}
}

// Nothing is restored into the host's namespace that nobody has asked for, and a dry
// run says so.
func TestRestoreAsksForTheHost(t *testing.T) {
	pid, dir := inHost(t), exampleImages(t)
	for _, more := range [][]string{{"--dry-run"}, {"--dry-run", "--on-conflict", "adopt"}} {
		args := append([]string{"restore", "--pid", pid, "-D", dir}, more...)
		runCommand(t, args...).wantError(t, 1, "restore "+dir+" into "+theHost+": ", "every program on the host can reach it", "--host")
		// What is there may be in conflict, but it is looked at.
		if r := runCommand(t, append(args, "--host")...); !strings.HasPrefix(r.out, "would restore 2 queues") || !strings.Contains(r.out, " into "+theHost+": ") {
			t.Errorf("with --host: %+v", r)
		}
	}
}
