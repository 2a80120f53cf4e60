// Command demo shows the main job of ipc-cr on real queues: a program sends
// orders through two message queues, its IPC namespace is checkpointed while it
// lives on, and a fresh namespace gets the queues, from which another program
// receives. Both sides are shown to be equal, and the source to have lost
// nothing. It needs neither root nor CRIU.
//
//	go run ./hack/demo bin/ipc-cr
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "shop":
		return shop(os.Stdin, os.Stdout)
	case len(args) == 3 && args[0] == "restored":
		return restored(args[1], args[2])
	case len(args) != 1:
		return errors.New("usage: demo PATH-OF-IPC-CR")
	case os.Geteuid() != 0:
		return asRootOfAUserNamespace(args)
	}
	return story(args[0])
}

// asRootOfAUserNamespace does what unshare -Ur does.
func asRootOfAUserNamespace(args []string) error {
	fmt.Println("# Not root: the rest happens in a user namespace, as under unshare -Ur.")
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd.Run()
}
