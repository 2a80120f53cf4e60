package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/plugin"
)

type checkpointFlags struct {
	target targetFlags
	dir    string
	number uint32
	freeze bool
	method string
	force  bool
	json   bool
}

func newCheckpoint() *cobra.Command {
	f := &checkpointFlags{}
	cmd := &cobra.Command{
		Use:   "checkpoint (--pid PID | --ns PATH) --images-dir DIR",
		Short: "Copy the message queues of an IPC namespace into image files",
		Long: `Copy the message queues of an IPC namespace into CRIU image files. No message is
consumed and nothing in the namespace changes.

The copy is a state that the namespace really had, or the command fails: without
--freeze it waits for a moment at which no queue is in use, and tries five times.
With --freeze it stops every task of the namespace for the copy, ten seconds at
most.

The kernel finds a message by walking from the head of its queue, so that MSG_COPY
(--method copy) takes seconds for a queue of many thousands. A BPF program
(--method bpf) walks once, where it is possible: see ipc-cr check. By default it
is used where it is worth its loading. The images are the same.`,
		Example: `  ipc-cr checkpoint --pid 4242 --images-dir /tmp/checkpoint
  ipc-cr checkpoint --ns /run/ipcns/web --images-dir /tmp/checkpoint --freeze --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.target.add(cmd)
	cmd.Flags().StringVarP(&f.dir, "images-dir", "D", "", "write the images to `DIR`, which is made if it does not exist")
	cmd.Flags().Uint32Var(&f.number, "ns-id", 1, "number `N` of the namespace in the names of the files")
	cmd.Flags().BoolVar(&f.freeze, "freeze", false, "stop every task of the namespace for the copy")
	cmd.Flags().StringVar(&f.method, "method", string(plugin.MethodAuto), "how to copy: `auto|copy|bpf`")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace images that DIR holds already")
	cmd.Flags().BoolVar(&f.json, "json", false, "report as JSON")
	_ = cmd.MarkFlagDirname("images-dir")
	_ = cmd.RegisterFlagCompletionFunc("method", cobra.FixedCompletions(
		[]string{"auto", "copy", "bpf"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *checkpointFlags) run(cmd *cobra.Command) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	ns, err := f.target.open(cmd)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer ns.Close()
	if f.freeze {
		defer withoutJobStop()()
	}
	out := outputOf(cmd, f.json)
	bar := newBar(out.err, "copying")
	report, err := plugin.Checkpoint(cmd.Context(), plugin.CheckpointOptions{
		Kinds: kinds, Namespace: ns, Dir: f.dir, Number: f.number,
		Freeze: f.freeze, Method: plugin.Method(f.method), Force: f.force, Progress: bar.progress(),
	})
	bar.done()
	if err != nil {
		return err
	}
	warn(out.err, report.Warnings)
	return out.printDone("checkpoint: it is complete in "+report.Dir, report, func(w io.Writer) { checkpointText(w, report) })
}

func (f *checkpointFlags) check(cmd *cobra.Command) error {
	if !slices.Contains(plugin.Methods, plugin.Method(f.method)) {
		return usage("--method %q: want auto, copy or bpf", f.method)
	}
	return oneOf(cmd, []string{"pid", "ns"}, "images-dir")
}

// oneOf wants exactly one of the flags, and all of the others.
func oneOf(cmd *cobra.Command, choice []string, required ...string) error {
	given := 0
	for _, name := range choice {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given != 1 {
		return usage("give one of %s", flagList(choice))
	}
	for _, name := range required {
		if !cmd.Flags().Changed(name) || cmd.Flag(name).Value.String() == "" {
			return usage("give --%s", name)
		}
	}
	return nil
}

func flagList(names []string) string {
	list := ""
	for i, name := range names {
		switch {
		case i > 0 && i == len(names)-1:
			list += " and "
		case i > 0:
			list += ", "
		}
		list += "--" + name
	}
	return list
}
