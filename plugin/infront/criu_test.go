package infront

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// dumped dumps a task through the link, or without one the ordinary way.
func dumped(t *testing.T, link *Link, pid int, more ...string) (dir, said string) {
	t.Helper()
	dir = imagesDir(t)
	args := append([]string{"dump", "-t", strconv.Itoa(pid), "-D", dir, "-o", "dump.log", "-v4"}, more...)
	cmd := exec.Command("criu", args...)
	if link != nil {
		cmd = inFront(link, exec.Command(link.Name(), args...))
	}
	said = must(t, cmd, filepath.Join(dir, "dump.log"))
	t.Logf("frozen for %v\n%s", frozenTime(t, dir), wrong(filepath.Join(dir, "dump.log")))
	return dir, said
}

// restored restores a directory with criu alone and returns the root task's pid.
func restored(t *testing.T, dir string) int {
	t.Helper()
	pidfile := filepath.Join(t.TempDir(), "pid")
	must(t, exec.Command("criu", "restore", "-D", dir, "-o", "restore.log", "-v4",
		"--restore-detached", "--restore-sibling", "--pidfile", pidfile), filepath.Join(dir, "restore.log"))
	text, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	})
	return pid
}

// The whole chain with criu alone: a dump through the link is an ordinary one,
// which criu restores without ipc-cr into a fresh namespace.
func TestDumpBesideAndRestore(t *testing.T) {
	nstest.Require(t, "criu")
	ns := nstest.Fresh(t)
	fill(t, ns, 2000)
	want := content(t, ns)
	link := newLink(t)

	ordinaryDir, _ := dumped(t, nil, startSleeper(t, ns).Process.Pid, "--leave-running")
	task := startSleeper(t, ns)
	dir, said := dumped(t, link, task.Process.Pid)
	if said+link.Said() != "" {
		t.Errorf("said %q, %q", said, link.Said())
	}
	if content(t, ns) != want {
		t.Error("the dump changed the queues")
	}
	t.Logf("2,000 messages: frozen %v beside, %v the ordinary way", frozenTime(t, dir), frozenTime(t, ordinaryDir))
	_ = task.Wait() // its pid must be free

	after := namespaceOf(t, restored(t, dir))
	if same, err := after.Same(ns); err != nil || same || after.IsHost() {
		t.Errorf("restored into %s (%v), dumped in %s", after, err, ns)
	}
	if content(t, after) != want {
		t.Error("other queues than before")
	}
}

// What criu dumps the ordinary way is the same but for the method.
func TestDumpBesideWritesWhatCRIUWrites(t *testing.T) {
	nstest.Require(t, "criu")
	ns := nstest.Fresh(t)
	fill(t, ns, 100)
	task := startSleeper(t, ns).Process.Pid
	beside, _ := dumped(t, newLink(t), task, "--leave-running")
	plain, _ := dumped(t, nil, task, "--leave-running")
	for _, kind := range []string{images.MsgKind, images.VarKind} {
		if got, want := only(t, beside, kind), only(t, plain, kind); got != want {
			t.Errorf("%s: other bytes than CRIU's", kind)
		}
	}
}

func only(t *testing.T, dir, kind string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, kind+"-*.img"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", kind, found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What stands in the way is said, and the dump made the ordinary way.
func TestDumpTheOrdinaryWay(t *testing.T) {
	nstest.Require(t, "criu")
	for name, c := range map[string]struct {
		prepare func(t *testing.T, ns *nsenter.Namespace)
		host    bool
		args    []string
		says    string
	}{
		"semaphores":     {prepare: semaphore, says: "1 semaphore sets and 0 shared memory"},
		"shared memory":  {prepare: segment, says: "0 semaphore sets and 1 shared memory"},
		"external":       {args: []string{"--external", "ipc[1]:x"}, says: `--external "ipc[1]:x"`},
		"the host's own": {host: true, says: "host's IPC namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			var ns *nsenter.Namespace
			if !c.host {
				ns = nstest.Fresh(t)
				fill(t, ns, 3)
			}
			if c.prepare != nil {
				c.prepare(t, ns)
			}
			link := newLink(t)
			dir, _ := dumped(t, link, startSleeper(t, ns).Process.Pid, append(c.args, "--leave-running")...)
			if !strings.Contains(link.Said(), c.says) || strings.Count(link.Said(), "\n") != 1 {
				t.Errorf("said %q, want one line with %q", link.Said(), c.says)
			}
			if c.host {
				return
			}
			number := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(onlyName(t, dir)), "ipcns-msg-"), ".img")
			if n, err := strconv.Atoi(number); err != nil || n == 0 {
				t.Errorf("CRIU has not dumped the queues: %v", err)
			}
		})
	}
}

func onlyName(t *testing.T, dir string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, "ipcns-msg-*.img"))
	if len(found) != 1 {
		t.Fatalf("%q", found)
	}
	return found[0]
}

func semaphore(t *testing.T, ns *nsenter.Namespace) { ipcGet(t, ns, unix.SYS_SEMGET, 1) }

func segment(t *testing.T, ns *nsenter.Namespace) { ipcGet(t, ns, unix.SYS_SHMGET, 4096) }

func ipcGet(t *testing.T, ns *nsenter.Namespace, call, size uintptr) {
	t.Helper()
	err := ns.Run(func() error {
		if _, _, errno := unix.Syscall(call, 0, size, 0o1600); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
