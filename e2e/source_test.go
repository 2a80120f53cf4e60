package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// Whatever becomes of a checkpoint, nothing is taken from the source, changed in
// it or noted in it as used.
var sources = []struct {
	name  string
	spoil func(t *testing.T, ns *nsenter.Namespace, dir string)
	args  []string
	says  string // the error, "" for none
}{
	{"plain", nothingSpoilt, nil, ""},
	{"freeze", nothingSpoilt, []string{"--freeze"}, ""},
	{"msgmax lowered", func(t *testing.T, ns *nsenter.Namespace, _ string) { lowerMsgmax(t, ns) }, nil, ""},
	{"msgmax lowered and freeze", func(t *testing.T, ns *nsenter.Namespace, _ string) { lowerMsgmax(t, ns) }, []string{"--freeze"}, ""},
	{"full directory", fullDirectory, nil, "no space left on device"},
	{"full directory and msgmax lowered", func(t *testing.T, ns *nsenter.Namespace, dir string) {
		fullDirectory(t, ns, dir)
		lowerMsgmax(t, ns)
	}, []string{"--freeze"}, "no space left on device"},
	{"directory in use", func(t *testing.T, _ *nsenter.Namespace, dir string) {
		writeFile(t, filepath.Join(dir, "ipcns-var-1.img"), "of somebody else")
	}, nil, "holds images of namespace number 1 already"},
	{"directory is a file", func(t *testing.T, _ *nsenter.Namespace, dir string) {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "")
	}, nil, "not a directory"},
	{"directory cannot be written", func(t *testing.T, _ *nsenter.Namespace, dir string) {
		mountOver(t, dir, unix.MS_RDONLY, "")
	}, nil, "read-only file system"},
}

func nothingSpoilt(*testing.T, *nsenter.Namespace, string) {}

func lowerMsgmax(t *testing.T, ns *nsenter.Namespace) {
	inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 100) })
}

// fullDirectory has room for the first message.
func fullDirectory(t *testing.T, _ *nsenter.Namespace, dir string) {
	mountOver(t, dir, 0, "size=16k")
}

func mountOver(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount("e2e", dir, "tmpfs", flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSourceUnchanged(t *testing.T) {
	for _, c := range sources {
		t.Run(c.name, func(t *testing.T) {
			nstest.Require(t, "root")
			k := startTask(t, nstest.Fresh(t), 2)
			makeSource(t, k.ns(t))
			dir := imagesDir(t)
			c.spoil(t, k.ns(t), dir)
			compareSource(t, k.ns(t), dir, func() {
				args := append([]string{"checkpoint", "--pid", fmt.Sprint(k.pid), "--images-dir", dir}, c.args...)
				if c.says == "" {
					run(t, args...)
					return
				}
				refused(t, c.says, args...)
			})
			checkRuns(t, k.pid)
		})
	}
}

// makeSource makes queues that somebody has sent to and received from, so that
// every column says something.
func makeSource(t testing.TB, ns *nsenter.Namespace) {
	t.Helper()
	big := makeQueue(t, ns, 0x1234, samples...)
	inNamespace(t, ns, func() error { return receive(big) })
	inNamespace(t, ns, func() error { return setQbytes(big, 1<<20) })
	for range 20 {
		sendAll(t, ns, big, message{8, pattern(8192)})
	}
	makeQueueAs(t, ns, 1000, 0, message{1, "one"})
	makeQueue(t, ns, -7)
}

// compareSource wants the table, the limits, and the messages as they were, and
// nothing that passes for a file of ours where the checkpoint failed.
func compareSource(t *testing.T, ns *nsenter.Namespace, dir string, act func()) {
	t.Helper()
	columns, bounds := table(t, ns), limits(t, ns)
	content, files := queuesPastMsgmax(t, ns), filesIn(dir)
	failed := t.Failed()
	act()
	if diff := cmp.Diff(columns, table(t, ns)); diff != "" {
		t.Errorf("/proc/sysvipc/msg (-before +after):\n%s", diff)
	}
	if got := limits(t, ns); got != bounds {
		t.Errorf("msgmax, msgmnb, msgmni: %v, before %v", got, bounds)
	}
	compareQueues(t, content, queuesPastMsgmax(t, ns))
	if now := filesIn(dir); failed == t.Failed() && now != files && now != completeFiles {
		t.Errorf("%s holds %s, before %s", dir, now, files)
	}
}

const completeFiles = "ipc-cr-1.json ipcns-msg-1.img ipcns-var-1.img"

func filesIn(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return strings.Join(names, " ")
}

// checkRuns wants every thread of a process let go: not stopped (T), not traced
// (t), nobody's tracee.
func checkRuns(t testing.TB, pid int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("process %d to run", pid), func() bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, file := range files {
			status, err := os.ReadFile(file)
			if err != nil || strings.Contains(string(status), "State:\tT") || strings.Contains(string(status), "State:\tt") ||
				!strings.Contains(string(status), "TracerPid:\t0\n") {
				return false
			}
		}
		return len(files) > 0
	})
}
