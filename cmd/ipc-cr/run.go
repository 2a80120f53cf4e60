package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/criuconf"
	"github.com/ipc-cr/ipc-cr/plugin/infront"
)

// exitStatus is the status with which the command that run has run ended.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [--] COMMAND [ARG...]",
		Short: "Run a checkpoint command with CRIU beside the IPC namespace",
		Long: `Runs a command that checkpoints a container through CRIU, and lets CRIU sit in the
container's IPC namespace meanwhile: CRIU then leaves the message queues alone, and
ipc-cr saves them in one pass. The checkpoint is an ordinary one, which CRIU, runc
and Podman restore the ordinary way, with ipc-cr or without.

For this one command a program of the name criu stands in front of the real one on
PATH; nothing is installed. Checkpoints that do not allow it go the ordinary way, and
the reason is told on stderr: semaphores or shared memory in the namespace, the
host's namespace, a privilege that is missing, a CRIU before 3.19. Everything but a
dump goes straight to CRIU.

The exit status is the command's; 128 and the signal's number if a signal ended it.`,
		Example: `  ipc-cr run -- runc checkpoint --image-path /tmp/checkpoint web
  ipc-cr run -- podman container checkpoint --export web.tar.gz web
  ipc-cr run -- criu dump -t 4242 -D /tmp/checkpoint --leave-running`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := criuconf.CheckCRIU(cmd.Context(), os.Getenv("PATH")); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "ipc-cr: run: nothing is put in front of criu, and a dump goes the ordinary way: %v\n", err)
				return runPlain(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
			}
			return runInFront(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows COMMAND is COMMAND's own
	return cmd
}

// runInFront runs a command behind the place in front of criu.
func runInFront(stdin io.Reader, stdout, stderr io.Writer, args []string) (err error) {
	link, err := infront.NewLink()
	if err != nil {
		return err
	}
	defer func() {
		_, _ = io.WriteString(stderr, link.Said())
		err = errors.Join(err, link.Close())
	}()
	path := link.Path(os.Getenv("PATH"))
	program := link.Name()
	if args[0] != infront.Name {
		if program, err = exec.LookPath(args[0]); err != nil {
			return fmt.Errorf("run: %w", err)
		}
	}
	command := &exec.Cmd{
		Path: program, Args: args, Env: append(os.Environ(), "PATH="+path),
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
	}
	return runForwarding(command)
}

// runPlain runs a command as it is.
func runPlain(stdin io.Reader, stdout, stderr io.Writer, args []string) error {
	program, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return runForwarding(&exec.Cmd{Path: program, Args: args, Stdin: stdin, Stdout: stdout, Stderr: stderr})
}

// runForwarding runs a command and hands on the signals that are sent to this
// process. An interrupt from the terminal reaches both by itself.
func runForwarding(command *exec.Cmd) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	if err := command.Start(); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = command.Process.Signal(s) // it may have ended just now
			}
		case err := <-ended:
			return statusOf(command, err)
		}
	}
}

// fromTerminal reports whether the terminal has sent a signal to the command as
// well: it sends these to the whole foreground process group.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// statusOf makes the command's exit status this process's.
func statusOf(command *exec.Cmd, err error) error {
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		if err != nil {
			return fmt.Errorf("run %s: %w", command.Args[0], err)
		}
		return nil
	}
	if wait, ok := failed.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return exitStatus(128 + int(wait.Signal()))
	}
	return exitStatus(failed.ExitCode())
}
