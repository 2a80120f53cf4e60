package nstest

import (
	"errors"
	"fmt"
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

// makesNamespaces tells why this process cannot make an IPC namespace, nil if
// it can.
var makesNamespaces = sync.OnceValue(func() error {
	n, err := nsenter.New()
	if err != nil {
		return err
	}
	return n.Close()
})

// runInUserNamespace reports false if the process could not be started. The
// thread is held because the death signal is sent when the thread that started
// the process ends, not when the process of that thread does.
func runInUserNamespace() (status int, ok bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), reexecEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "nstest: tests run without namespaces of their own: %v\n", err)
		return 0, false
	}
	if err := cmd.Wait(); err != nil {
		return max(cmd.ProcessState.ExitCode(), 1), true
	}
	return 0, true
}
