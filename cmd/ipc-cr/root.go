package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// output is where a command writes, and how.
type output struct {
	out, err io.Writer
	json     bool
}

// print writes a report as JSON or as text.
func (o *output) print(report any, text func(io.Writer)) error {
	if !o.json {
		w := bufio.NewWriter(o.out) // which keeps the first error for Flush
		text(w)
		return w.Flush()
	}
	encoder := json.NewEncoder(o.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(report)
}

// printDone is print for a report of work that is done: whoever sees the error alone
// must not do it again. done says what and where.
func (o *output) printDone(done string, report any, text func(io.Writer)) error {
	if err := o.print(report, text); err != nil {
		return fmt.Errorf("%s, but the report could not be written: %w", done, err)
	}
	return nil
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "ipc-cr",
		Short: "Carry message queues through container checkpoint and restore",
		Long: `ipc-cr copies the System V message queues of an IPC namespace into CRIU-compatible
image files without consuming a message, and recreates them in another namespace.

It needs no root inside a user namespace (unshare -Ur, podman unshare).`,
		Example: `  ipc-cr checkpoint --pid 4242 --images-dir /tmp/checkpoint
  ipc-cr show /tmp/checkpoint
  ipc-cr restore --new --images-dir /tmp/checkpoint -- ipcs -q
  ipc-cr check`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// An error is one line. Without Args cobra refuses an unknown command before
		// it looks at a --help behind it.
		DisableSuggestions: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 { // behind --
				return usage("unknown command %q", args[0])
			}
			return cmd.Help()
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newCheckpoint(), newRestore(), newShow(), newCheck(), newLog(), newRun(), newHook(), newVersion(), newInstall(), newUninstall())
	for _, cmd := range root.Commands() {
		asUsage(cmd)
	}
	return root
}

// asUsage makes wrong arguments a usage error.
func asUsage(cmd *cobra.Command) {
	args := cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if args == nil {
			return nil
		}
		if err := args(cmd, given); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// outputOf is where a command writes to.
func outputOf(cmd *cobra.Command, json bool) *output {
	return &output{out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), json: json}
}
