package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// What is lost is said, on stderr and in the report.
func TestCheckpointWarnsOfPOSIXQueues(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := namespace(t)
	nstest.POSIXQueue(t, ns, "lost", false)
	const lost = "POSIX message queues are not saved: 1 in the namespace, of which a restore makes none"
	for _, more := range []string{"--freeze", "--json"} {
		r := runCommand(t, "checkpoint", "--ns", path, "-D", filepath.Join(t.TempDir(), "images"), more)
		if r.status != 0 || r.err != "ipc-cr: warning: "+lost+"\n" || strings.Contains(r.out, "not known") {
			t.Errorf("%s: %+v", more, r)
		}
		if more == "--json" && !strings.Contains(r.out, lost) {
			t.Errorf("not in %s", r.out)
		}
	}
}

// Where they cannot be counted, that is said as well: it is not as if there were none.
func TestCheckpointWithoutPrivilege(t *testing.T) {
	nstest.Require(t, "root")
	ns := nstest.Fresh(t)
	nstest.POSIXQueue(t, ns, "lost", false)
	dir, err := os.MkdirTemp("", "ipc-cr-") // one that others can write to, unlike t.TempDir's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	const unknown = "whether there are POSIX message queues, which are not saved: needs CAP_SYS_ADMIN over the namespace: operation not permitted"
	checkpoint := []string{"checkpoint", "--ns", "/proc/self/ns/ipc", "--force", "-D", dir}
	status, out := runProcess(nstest.Start(t, ns, nobodyProgram, checkpoint...))
	if status != 0 || !strings.HasSuffix(out, "\n  not known: "+unknown+"\n") {
		t.Errorf("exit status %d, stdout %q", status, out)
	}
	status, out = runProcess(nstest.Start(t, ns, nobodyProgram, append(checkpoint, "--json")...))
	var report struct {
		NotKnown []string `json:"not_known"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || len(report.NotKnown) != 1 || report.NotKnown[0] != unknown {
		t.Errorf("exit status %d, %v, %q", status, err, report.NotKnown)
	}
}
