package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// story is the demonstration, told on stdout.
func story(ipcCR string) error {
	dir, err := os.MkdirTemp("", "ipc-cr-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	first := filepath.Join(dir, "checkpoint")

	say("A shop with an IPC namespace of its own has sent seven orders and worked on two:")
	shop, err := startShop()
	if err != nil {
		return err
	}
	defer shop.stop()
	before, err := shop.ask("table")
	if err != nil {
		return err
	}
	fmt.Print(before)

	say("Its queues are copied; it goes on meanwhile:")
	if err := ipc(ipcCR, "checkpoint", "--pid", strconv.Itoa(shop.pid()), "--images-dir", first); err != nil {
		return err
	}
	say("What is in the images:")
	if err := ipc(ipcCR, "show", "--messages", first); err != nil {
		return err
	}
	say("A fresh namespace gets the queues, and another program runs there:")
	if err := ipc(ipcCR, "restore", "--new", "--images-dir", first, "--", self, "restored", ipcCR, first); err != nil {
		return err
	}
	say("Back in the shop, nothing has changed, and its own program receives the same orders:")
	return nothingLost(shop, before)
}

// restored runs in the fresh namespace: it compares, and receives.
func restored(ipcCR, first string) error {
	again := filepath.Join(filepath.Dir(first), "again")
	say("Checkpointed once more in the fresh namespace, the images are the same, byte for byte:")
	if err := ipc(ipcCR, "checkpoint", "--pid", strconv.Itoa(os.Getpid()), "--images-dir", again); err != nil {
		return err
	}
	for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-1.img"} {
		if err := same(filepath.Join(first, name), filepath.Join(again, name)); err != nil {
			return err
		}
	}
	say("The orders, received there:")
	return receiveAll(os.Stdout)
}

func same(a, b string) error {
	one, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	other, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(one, other) {
		return fmt.Errorf("%s and %s differ", a, b)
	}
	fmt.Printf("%s: %d bytes, equal\n", filepath.Base(a), len(one))
	return nil
}

// nothingLost shows that the source is as it was.
func nothingLost(shop *program, before string) error {
	after, err := shop.ask("table")
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the shop's queues have changed:\n%s", after)
	}
	received, err := shop.ask("receive")
	if err != nil {
		return err
	}
	fmt.Print(received)
	if strings.Count(received, "\n") != orders {
		return errors.New("orders were lost")
	}
	return nil
}

func say(text string) { fmt.Printf("\n# %s\n", text) }

// ipc runs ipc-cr and shows the command line.
func ipc(ipcCR string, args ...string) error {
	shown := append([]string{"ipc-cr"}, args...)
	if i := len(shown) - 4; i > 0 && shown[i] == "--" {
		shown = append(shown[:i+1], "demo", "receive")
	}
	fmt.Println("$", strings.Join(shown, " "))
	cmd := exec.Command(ipcCR, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
