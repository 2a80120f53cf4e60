package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"golang.org/x/sys/unix"
)

// taskEnv makes the test binary a task of a test. It holds the shared directory,
// whose end is the task's own. (Not the test's pid and start time: CRIU restores
// tasks in a time namespace, where /proc shows other start times.)
const taskEnv = "IPC_CR_E2E_TASK"

// A task is the root of a tree of processes that CRIU can dump: a session of
// its own, /dev/null for stdio, no file of the test's.
type task struct {
	pid  int
	wait func() error
}

// startTask starts a task with that many children in the namespace.
func startTask(t testing.TB, ns *nsenter.Namespace, children int) *task {
	t.Helper()
	k, cmd := newTask(t, children)
	if err := ns.Run(cmd.Start); err != nil {
		t.Fatalf("start a task: %v", err)
	}
	return k.started(t, cmd, children)
}

// startSleeper starts a task that costs CRIU as little as can be.
func startSleeper(t testing.TB, ns *nsenter.Namespace) *task {
	t.Helper()
	cmd := exec.Command("sleep", "900")
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Run(cmd.Start); err != nil {
		t.Fatalf("start a task: %v", err)
	}
	return (&task{wait: sync.OnceValue(cmd.Wait)}).started(t, cmd, 0)
}

func newTask(t testing.TB, children int) (*task, *exec.Cmd) {
	t.Helper()
	cmd := taskCommand(taskProgram(t), children)
	cmd.Env = []string{taskEnv + "=" + shared(t)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return &task{wait: sync.OnceValue(cmd.Wait)}, cmd
}

func taskCommand(program string, children int) *exec.Cmd {
	cmd := exec.Command(program, strconv.Itoa(children))
	cmd.Dir = "/" // CRIU opens the working directory again on restore
	return cmd
}

func (k *task) started(t testing.TB, cmd *exec.Cmd, children int) *task {
	t.Helper()
	k.pid = cmd.Process.Pid
	t.Cleanup(func() { k.kill(t) })
	waitFor(t, "the children of a task", func() bool { return len(childrenOf(k.pid)) == children })
	return k
}

// kill ends the whole tree and frees its pids, which the restored tasks want.
func (k *task) kill(t testing.TB) {
	t.Helper()
	endChildren(t, k.pid)
	unix.Kill(k.pid, unix.SIGKILL)
	k.wait()
}

// endChildren goes first: a task waits for its children, init may take seconds
// for those it inherits.
func endChildren(t testing.TB, pid int) {
	t.Helper()
	waitFor(t, "the end of a task's children", func() bool {
		children := childrenOf(pid)
		for _, child := range children {
			unix.Kill(child, unix.SIGKILL)
		}
		return len(children) == 0
	})
}

// ns opens the IPC namespace of the task.
func (k *task) ns(t testing.TB) *nsenter.Namespace { return namespaceOf(t, k.pid) }

func namespaceOf(t testing.TB, pid int) *nsenter.Namespace {
	t.Helper()
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func identityOf(t testing.TB, ns *nsenter.Namespace) nsenter.Identity {
	t.Helper()
	id, err := ns.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// taskProgram copies the test binary: its own path may be gone when CRIU
// restores an executable by it.
func taskProgram(t testing.TB) string {
	t.Helper()
	shared(t)
	path, err := copyOfUs()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var copyOfUs = sync.OnceValues(func() (string, error) {
	dir, err := sharedDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "task")
	return path, copyFile(path, "/proc/self/exe", 0o755)
})

func copyFile(to, from string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// runTask is the task's own side. It polls, because no descriptor of the test's
// would survive a checkpoint.
func runTask() (status int) {
	children, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return 2
	}
	for range children {
		child := taskCommand("/proc/self/exe", 0)
		if err := child.Start(); err != nil {
			return 1
		}
		go child.Wait()
	}
	for {
		if _, err := os.Stat(os.Getenv(taskEnv)); err != nil {
			return 0
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// parentOf is field 4 of proc_pid_stat(5). Before it stand a name, which may
// hold anything, its closing parenthesis and the state.
func parentOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	end := strings.LastIndexByte(string(stat), ')')
	return strings.Fields(string(stat[end+1:]))[1], nil
}

// childrenOf returns the pids whose parent is pid.
func childrenOf(pid int) []int {
	var children []int
	links, _ := filepath.Glob("/proc/[0-9]*")
	for _, link := range links {
		child, _ := strconv.Atoi(filepath.Base(link))
		if parent, err := parentOf(child); err == nil && parent == strconv.Itoa(pid) {
			children = append(children, child)
		}
	}
	return children
}
