package main

import (
	"bufio"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/images/inspect"
)

type showFlags struct {
	messages bool
	json     bool
}

func newShow() *cobra.Command {
	f := &showFlags{}
	cmd := &cobra.Command{
		Use:   "show DIR|FILE|ARCHIVE",
		Short: "Show the message queues in image files",
		Long: `Show the message queues and limits in an images directory, in one image file, or
in an archive of podman container checkpoint --export (plain, gzip or zstd). Sizes
are in bytes, modes in octal, keys in hexadecimal.`,
		Example: `  ipc-cr show /tmp/checkpoint
  ipc-cr show /tmp/checkpoint/ipcns-msg-1.img --messages
  ipc-cr show /tmp/container.tar.zst --json`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	cmd.Flags().BoolVar(&f.messages, "messages", false, "show every message")
	cmd.Flags().BoolVar(&f.json, "json", false, "show as JSON, with the whole payload of messages in base64")
	return cmd
}

func oneArgument(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("show: %d arguments: give one, DIR, FILE or ARCHIVE", len(args))
	}
	return nil
}

func (f *showFlags) run(cmd *cobra.Command, path string) error {
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	err := inspect.Path(path, f.visitor(out))
	if err == nil && f.json {
		_, err = fmt.Fprint(out, "\n]}\n")
	}
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		return fmt.Errorf("show: %w", err)
	}
	return nil
}

func (f *showFlags) visitor(out *bufio.Writer) inspect.Visitor {
	if f.json {
		return &showJSON{w: out, messages: f.messages}
	}
	return &showText{w: out, messages: f.messages}
}
