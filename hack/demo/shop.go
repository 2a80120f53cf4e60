package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The shop's orders, and how many of them it has worked on.
const (
	orders = 7
	done   = 2
)

// The shop's queues: one for orders, one for what is ready.
var queues = []struct {
	key  int
	name string
}{{0x5407, "orders"}, {0x5408, "ready"}}

// shop is the program whose queues are carried. It fills them and then does
// what it is asked.
func shop(asked io.Reader, answer io.Writer) error {
	if err := open(); err != nil {
		return err
	}
	lines := bufio.NewScanner(asked)
	for fmt.Fprintln(answer, "."); lines.Scan(); fmt.Fprintln(answer, ".") {
		var err error
		switch lines.Text() {
		case "table":
			err = table(answer)
		case "receive":
			err = receiveAll(answer)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func open() error {
	ids := make([]int, len(queues))
	for i, q := range queues {
		var err error
		if ids[i], err = msgget(q.key, 0o600); err != nil {
			return err
		}
	}
	for n := 1; n <= orders; n++ {
		if err := msgsnd(ids[0], int64(n), fmt.Sprintf("order %d: %d pots of tea", n, n*n)); err != nil {
			return err
		}
	}
	for range done {
		mtype, text, err := msgrcv(ids[0])
		if err != nil {
			return err
		}
		if err := msgsnd(ids[1], mtype, strings.Replace(text, "order", "ready", 1)); err != nil {
			return err
		}
	}
	return nil
}

// receiveAll empties both queues.
func receiveAll(w io.Writer) error {
	for _, q := range queues {
		id, err := msgget(q.key, 0)
		if err != nil {
			return err
		}
		for {
			mtype, text, err := msgrcv(id)
			if errors.Is(err, unix.ENOMSG) {
				break
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%-6s type %d  %s\n", q.name, mtype, text)
		}
	}
	return nil
}

// table copies the kernel's own table of the queues, all columns.
func table(w io.Writer) error {
	text, err := os.ReadFile("/proc/sysvipc/msg")
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// program is a shop that runs.
type program struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	says   *bufio.Scanner
}

func startShop() (*program, error) {
	cmd := exec.Command("/proc/self/exe", "shop")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWIPC}
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	says, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &program{cmd: cmd, orders: orders, says: bufio.NewScanner(says)}
	_, err = p.answer()
	return p, err
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// ask gives an order and returns the answer.
func (p *program) ask(order string) (string, error) {
	if _, err := fmt.Fprintln(p.orders, order); err != nil {
		return "", err
	}
	return p.answer()
}

func (p *program) answer() (string, error) {
	var text strings.Builder
	for p.says.Scan() {
		if p.says.Text() == "." {
			return text.String(), nil
		}
		fmt.Fprintln(&text, p.says.Text())
	}
	return "", errors.New("the shop has ended")
}

func (p *program) stop() {
	_ = p.orders.Close()
	_ = p.cmd.Wait()
}
