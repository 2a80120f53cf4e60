package nstest

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"golang.org/x/sys/unix"
)

// reexecEnv marks the test binary that Main has started in a user namespace.
const reexecEnv = "IPC_CR_NSTEST_REEXEC"

// Main runs the tests and exits. Without CAP_SYS_ADMIN it runs them in a second
// instance of the test binary, in a fresh user and IPC namespace with the
// caller mapped to root; where that cannot be made the tests run as they are,
// and Require("userns") skips. In a process that Start started, it runs the
// program instead.
func Main(m *testing.M) {
	if name, ok := os.LookupEnv(programEnv); ok {
		os.Exit(runProgram(name))
	}
	if _, again := os.LookupEnv(reexecEnv); !again && errors.Is(makesNamespaces(), unix.EPERM) {
		if status, ok := runInUserNamespace(); ok {
			os.Exit(status)
		}
	}
	os.Exit(m.Run())
}

// privateEnv marks the test binary that MainInMounts has started.
const privateEnv = "IPC_CR_NSTEST_PRIVATE"

// MainInMounts is Main in a mount namespace of its own, which prepare makes ready. What
// the tests start inherits no descriptor of who started them: it is open in another
// mount namespace, which CRIU refuses to dump. Without CAP_SYS_ADMIN it is Main alone.
func MainInMounts(m *testing.M, prepare func() error) {
	_, program := os.LookupEnv(programEnv)
	_, private := os.LookupEnv(privateEnv)
	switch {
	case program || !private && makesNamespaces() != nil:
	case private:
		err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
		if err := errors.Join(err, os.Unsetenv(privateEnv), prepare()); err != nil {
			fmt.Fprintf(os.Stderr, "nstest: %v\n", err)
			os.Exit(1)
		}
	default:
		status, ok := runIn(&syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, privateEnv)
		if !ok {
			status = 1
		}
		os.Exit(status)
	}
	Main(m)
}

// makesNamespaces tells why this process cannot make an IPC namespace, nil if
// it can.
var makesNamespaces = sync.OnceValue(func() error {
	n, err := nsenter.New()
	if err != nil {
		return err
	}
	return n.Close()
})

func runInUserNamespace() (status int, ok bool) {
	return runIn(&syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}, reexecEnv)
}

// runIn runs the test binary once more, marked by a variable of the environment. It
// reports false if the process could not be started. The thread is held because the
// death signal is sent when the thread that started the process ends, not when the
// process of that thread does.
func runIn(attr *syscall.SysProcAttr, mark string) (status int, ok bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	attr.Pdeathsig = unix.SIGKILL
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "nstest: start the tests in namespaces of their own: %v\n", err)
		return 0, false
	}
	if err := cmd.Wait(); err != nil {
		return max(cmd.ProcessState.ExitCode(), 1), true
	}
	return 0, true
}
