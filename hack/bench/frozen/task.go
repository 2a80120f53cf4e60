package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// A task is a container as small as can be: a process in an IPC namespace of its
// own, with a queue.
type task struct {
	messages int
	cmd      *exec.Cmd
	ns       *nsenter.Namespace
}

func (t *task) pid() int { return t.cmd.Process.Pid }

// startTask starts one whose queue has been left alone for more than a second.
func startTask(messages int) (*task, error) {
	ns, err := nsenter.New()
	if err != nil {
		return nil, err
	}
	t := &task{messages: messages, cmd: exec.Command("sleep", "3600"), ns: ns}
	t.cmd.Dir, t.cmd.Env = "/", []string{}
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = ns.Run(func() error { return errors.Join(fill(messages), t.cmd.Start()) })
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	time.Sleep(1100 * time.Millisecond) // the quiet second, where nobody is stopped
	return t, nil
}

func (t *task) end() {
	_ = t.cmd.Process.Kill()
	_ = t.cmd.Wait()
	_ = t.ns.Close()
}

// fill makes a queue with that many messages of one byte, on a thread that is in
// the namespace.
func fill(messages int) error {
	if err := os.WriteFile("/proc/sys/kernel/msgmnb", fmt.Append(nil, max(messages, 16384)), 0); err != nil {
		return err
	}
	id, _, errno := unix.Syscall(unix.SYS_MSGGET, 0x1234, unix.IPC_CREAT|0o600, 0)
	if errno != 0 {
		return os.NewSyscallError("msgget", errno)
	}
	message := struct {
		mtype int64
		text  [8]byte
	}{mtype: 1}
	for range messages {
		_, _, errno := unix.Syscall6(unix.SYS_MSGSND, id, uintptr(unsafe.Pointer(&message)), 1, unix.IPC_NOWAIT, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("msgsnd", errno)
		}
	}
	return nil
}
