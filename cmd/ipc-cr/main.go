// Command ipc-cr carries the message queues of an IPC namespace through a
// container's checkpoint and restore. It turns flags into calls of package
// plugin and reports into text or JSON, and has no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
	"github.com/ipc-cr/ipc-cr/plugin/infront"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// kinds are what ipc-cr carries, in the order in which a restore opens them.
var kinds = []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	if infront.Invoked() { // before anything changes signals, which an exec hands on
		os.Exit(infront.Main())
	}
	ctx, stop := untilSignal(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if idle.IsHook(os.Args[0]) {
		os.Exit(runHook(ctx, os.Getenv, os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if status, ended := errors.AsType[exitStatus](err); ended {
		return int(status)
	}
	_, usage := errors.AsType[*usageError](err)
	if cmd == root && !usage { // which does nothing by itself: an unknown command
		err, usage = &usageError{err}, true
	}
	fmt.Fprintf(stderr, "ipc-cr: %s\n", oneLine(err))
	if usage {
		return exitUsage
	}
	return exitFailed
}

// oneLine joins the lines of an error that consists of several.
func oneLine(err error) string { return printable(err.Error()) }

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() + " (see --help)" }

func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}
