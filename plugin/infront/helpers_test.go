package infront

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/stats"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// Under the names of a Link the test binary is what ipc-cr would be.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case Name:
		os.Exit(Main())
	case HookName:
		os.Exit(testHook())
	}
	nstest.Main(m)
}

// testHook is the least that an action script does: at post-dump of a dump beside
// the namespace it saves the queues. What it says comes into dump.log.
func testHook() int {
	if os.Getenv("CRTOOLS_SCRIPT_ACTION") != "post-dump" {
		return 0
	}
	began := time.Now()
	report, err := saveAfterDump()
	if err != nil {
		fmt.Fprintf(os.Stderr, "test hook: %v\n", err)
		return 1
	}
	if report == nil {
		fmt.Fprintln(os.Stderr, "test hook: not beside")
		return 0
	}
	fmt.Fprintf(os.Stderr, "test hook: saved %+v as number %d in %v: %d attempts, stopped %+v\n",
		report.Objects, report.Number, time.Since(began), report.Attempts, report.Frozen)
	return 0
}

func saveAfterDump() (*plugin.CheckpointReport, error) {
	init, err := strconv.Atoi(os.Getenv("CRTOOLS_INIT_PID"))
	if err != nil {
		return nil, err
	}
	beside, err := Beside(os.Getppid(), init)
	if err != nil || !beside {
		return nil, err
	}
	ns, err := nsenter.OpenPID(init)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return Save(context.Background(), plugin.CheckpointOptions{
		Kinds: []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}, Namespace: ns,
		Dir: os.Getenv("CRTOOLS_IMAGE_DIR"), Freeze: true,
	})
}

// newLink puts the test binary in front of criu for this test.
func newLink(t *testing.T) *Link {
	t.Helper()
	link, err := NewLink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	return link
}

// inFront makes a command one that finds the link first.
func inFront(link *Link, cmd *exec.Cmd) *exec.Cmd {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "PATH="+link.Path(os.Getenv("PATH")))
	return cmd
}

// fill makes a queue with that many messages.
func fill(t *testing.T, ns *nsenter.Namespace, messages int) {
	t.Helper()
	fillAs(t, ns, messages, kernel.Creator{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
}

func fillAs(t *testing.T, ns *nsenter.Namespace, messages int, creator kernel.Creator) {
	t.Helper()
	inSpace(t, ns, func(k kernel.Kernel) error {
		id, err := k.Create(0x51, 0o640, creator)
		if err != nil {
			return err
		}
		for i := range messages {
			message := binary.NativeEndian.AppendUint64(nil, uint64(i%7+1))
			if err := k.Send(id, fmt.Append(message, i)); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		return nil
	})
}

func inSpace(t *testing.T, ns *nsenter.Namespace, fn func(k kernel.Kernel) error) {
	t.Helper()
	if err := linux.NewSpace(ns, nil).Run(fn); err != nil {
		t.Fatal(err)
	}
}

// content tells everything of the queues of a namespace but times and pids.
func content(t *testing.T, ns *nsenter.Namespace) string {
	t.Helper()
	var all strings.Builder
	inSpace(t, ns, func(k kernel.Kernel) error {
		table, err := k.Table()
		if err != nil {
			return err
		}
		for index := range table.MaxIndex + 1 {
			var q kernel.Queue
			err := k.StatIndex(index, &q)
			if errors.Is(err, unix.EINVAL) {
				continue
			}
			if err != nil {
				return err
			}
			q.LSPID, q.LRPID, q.STime, q.RTime, q.CTime = 0, 0, 0, 0, 0
			fmt.Fprintf(&all, "%+v\n", q)
			if err := messages(k, q.ID, int(q.QNum), &all); err != nil {
				return err
			}
		}
		return nil
	})
	return all.String()
}

func messages(k kernel.Kernel, id int32, count int, all *strings.Builder) error {
	buf := make([]byte, 64)
	for i := range count {
		n, err := k.Copy(id, buf, i)
		if err != nil {
			return err
		}
		fmt.Fprintf(all, "%x\n", buf[:kernel.HeaderLen+n])
	}
	return nil
}

// startSleeper starts a process that CRIU can dump, in the namespace.
func startSleeper(t *testing.T, ns *nsenter.Namespace) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "900")
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start := cmd.Start
	if ns != nil {
		start = func() error { return ns.Run(cmd.Start) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// imagesDir makes a directory that the tasks of a user namespace can search.
func imagesDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipc-cr-infront-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// must runs a command that has to succeed.
func must(t *testing.T, cmd *exec.Cmd, log string) string {
	t.Helper()
	out, err := combined(cmd)
	if err != nil {
		t.Fatalf("%q: %v\n%s\n%s", cmd.Args, err, out, wrong(log))
	}
	return out
}

// combined gives the command a file: what it leaves behind would hold a pipe open.
func combined(cmd *exec.Cmd) (string, error) {
	file, err := os.CreateTemp("", "ipc-cr-infront-out-")
	if err != nil {
		return "", err
	}
	defer file.Close()
	defer os.Remove(file.Name())
	cmd.Stdout, cmd.Stderr = file, file
	failure := cmd.Run()
	out, err := os.ReadFile(file.Name())
	return string(out), errors.Join(failure, err)
}

// wrong returns the lines of a CRIU log that matter.
func wrong(log string) string {
	text, _ := os.ReadFile(log)
	var found strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") || strings.Contains(line, "test hook") {
			found.WriteString(line)
		}
	}
	return found.String()
}

// frozenTime is how long CRIU kept the tasks frozen.
func frozenTime(t *testing.T, dir string) time.Duration {
	t.Helper()
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dump, err := stats.CriuGetDumpStats(file)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(dump.GetFrozenTime()) * time.Microsecond
}

func namespaceOf(t *testing.T, pid int) *nsenter.Namespace {
	t.Helper()
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}
