package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/ipc-cr/ipc-cr/hack/bench/reference"
	"github.com/ipc-cr/ipc-cr/nsenter"
)

// A namespace is a fresh IPC namespace, kept alive by a process of reference/c/holder.c.
type namespace struct {
	holder *exec.Cmd
	orders io.WriteCloser
	says   *bufio.Scanner
}

// newNamespace makes a namespace, filled with the plan's queues or empty. It
// needs CAP_SYS_ADMIN.
func newNamespace(ctx context.Context, p reference.Programs, plan, content string) (*namespace, error) {
	cmd := exec.CommandContext(ctx, p.Path("holder"), plan, content)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWIPC}
	return hold(cmd, cmd.Start)
}

// pinnedNamespace takes over the namespace that a contender made and pinned.
func pinnedNamespace(ctx context.Context, p reference.Programs, plan, pin string) (*namespace, error) {
	ns, err := nsenter.OpenPath(pin)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.Path("holder"), plan, "empty")
	n, err := hold(cmd, func() error { return ns.Run(cmd.Start) })
	return n, errors.Join(err, ns.Close(), nsenter.Unpin(pin))
}

// hold starts a holder and waits until it is ready.
func hold(cmd *exec.Cmd, start func() error) (*namespace, error) {
	cmd.Stderr = os.Stderr
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("new ipc namespace (needs root): %w", err)
	}
	n := &namespace{holder: cmd, orders: orders, says: bufio.NewScanner(stdout)}
	if answer := n.answer(); answer != "ready" {
		return nil, errors.Join(fmt.Errorf("prepare namespace: holder says %q", answer), n.close())
	}
	return n, nil
}

func (n *namespace) pid() int { return n.holder.Process.Pid }

func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/ns/ipc", n.pid()) }

// answer returns the holder's next line, "" if it has ended.
func (n *namespace) answer() string {
	n.says.Scan()
	return strings.TrimSpace(n.says.Text())
}

// verify compares the namespace with the plan, and empties its queues.
func (n *namespace) verify() error {
	if _, err := io.WriteString(n.orders, "verify\n"); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if answer := n.answer(); answer != "equal" {
		return fmt.Errorf("verify: wrong %s", answer)
	}
	return nil
}

// close removes what is in the namespace and waits until the holder has ended.
func (n *namespace) close() error {
	if err := errors.Join(n.orders.Close(), n.holder.Wait()); err != nil {
		return fmt.Errorf("holder of the namespace: %w", err)
	}
	return nil
}
