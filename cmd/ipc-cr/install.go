package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/plugin/criuconf"
)

// defaultWait is longer than most dumps and restores take.
const defaultWait = time.Minute

type installFlags struct {
	options criuconf.Options
	json    bool
}

func newInstall() *cobra.Command {
	f := &installFlags{}
	cmd := &cobra.Command{
		Use:   "install [--runtime runc|crun|criu]... [--in-front [--dir DIR]]",
		Short: "Put the hook into the CRIU configuration of container runtimes, or ipc-cr in front of criu",
		Long: `Put the hook into the CRIU configuration of runc and crun, so that every
checkpoint and restore of a container carries its message queues. Podman, CRI-O and
containerd use one of these two. With --runtime criu it goes into the file that
every criu reads, whoever starts it: one file for all, in place of the others. It
goes there without --runtime, too, where criu is older than 4.2, which would run
it twice from runc's file and not at all from crun's; and it stays there once it
is.

One line is added to a file, and ipc-cr uninstall takes it away again. The hook is
a symbolic link named ` + criuconf.Name + ` beside the binary; only root may be able to
write the binary and the directories that lead to it.

With --in-front the name criu becomes a link to ipc-cr, in a directory that is
searched before that of the real criu: /usr/local/sbin as a rule. Whoever starts
criu then starts ipc-cr, which lets criu sit in the container's IPC namespace for a
dump, as ipc-cr run does for one command, and otherwise becomes the real criu at
once. Without --runtime nothing else is installed; restores gain from the hook, so
that hosts mostly want both.

A CRIU before 3.19 aborts when a runtime starts it and its configuration names an
action script, whatever that does: with one on the host install refuses.`,
		Example: `  ipc-cr install
  ipc-cr install --runtime runc --dry-run
  ipc-cr install --in-front
  ipc-cr install --in-front --dir /opt/first/bin --runtime runc
  ipc-cr install --root /tmp/package --binary /usr/bin/ipc-cr --runtime runc --runtime crun`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, criuconf.Install) },
	}
	f.add(cmd, "the runtime `NAME`: runc, crun or criu; again for several (default: runc and crun, if on PATH)")
	return cmd
}

func newUninstall() *cobra.Command {
	f := &installFlags{}
	cmd := &cobra.Command{
		Use:   "uninstall [--runtime runc|crun|criu]... [--in-front [--dir DIR]]",
		Short: "Take the hook out of the CRIU configuration of container runtimes, and ipc-cr from the front of criu",
		Long: `Take the hook's lines out of the CRIU configuration of the runtimes, and remove the
files that ipc-cr install made if nothing else was written into them. The links to
this ipc-cr in front of criu go too, wherever on PATH they are. The hook itself, a
symbolic link beside the binary, goes when nothing needs it any more.

A criu that runs meanwhile has read the lines, and would fail at its next action
without the hook. So the lines go first, and then uninstall waits for the criu
processes that run, and says for which. If one still runs when the time is over the
hook stays, and the exit status is 1: run uninstall again when it has ended.

With --runtime or --in-front only what they name is taken away.`,
		Example: `  ipc-cr uninstall
  ipc-cr uninstall --in-front
  ipc-cr uninstall --runtime crun --dry-run
  ipc-cr uninstall --wait 10m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, criuconf.Uninstall) },
	}
	f.add(cmd, "the runtime `NAME`: runc, crun or criu; again for several (default: all)")
	cmd.Flags().DurationVar(&f.options.Wait, "wait", defaultWait, "wait for running criu processes for `DURATION`, such as 30s; 0 does not wait")
	return cmd
}

func (f *installFlags) add(cmd *cobra.Command, runtimes string) {
	cmd.Flags().StringArrayVar(&f.options.Runtimes, "runtime", nil, runtimes)
	cmd.Flags().BoolVar(&f.options.InFront, "in-front", false, "the place in front of criu; alone, nothing but that")
	cmd.Flags().StringVar(&f.options.Dir, "dir", "", "with --in-front: the directory `DIR` of that place, first on the PATH of those who start criu")
	cmd.Flags().StringVar(&f.options.Root, "root", "", "work below `DIR`, for packagers; paths inside the files are without it")
	cmd.Flags().StringVar(&f.options.Binary, "binary", "", "`PATH` of ipc-cr below --root (default: that of the running one)")
	cmd.Flags().BoolVar(&f.options.DryRun, "dry-run", false, "show what would be done, line by line")
	cmd.Flags().BoolVar(&f.json, "json", false, "report as JSON")
	_ = cmd.RegisterFlagCompletionFunc("runtime", cobra.FixedCompletions(criuconf.Runtimes(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("root")
	_ = cmd.MarkFlagDirname("dir")
}

func (f *installFlags) run(cmd *cobra.Command, do func(context.Context, criuconf.Options) (*criuconf.Report, error)) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	f.options.Waiting = func(running []criuconf.Running) { f.sayWaiting(cmd.ErrOrStderr(), running) }
	report, err := do(cmd.Context(), f.options)
	if report == nil {
		return err
	}
	out := outputOf(cmd, f.json)
	return errors.Join(err, out.printDone(cmd.Name()+": done", report, func(w io.Writer) { installText(w, report) }))
}

// sayWaiting says for whom uninstall waits, at once: it can take a while.
func (f *installFlags) sayWaiting(w io.Writer, running []criuconf.Running) {
	for _, r := range running {
		fmt.Fprintf(w, "ipc-cr: uninstall: waiting for %s, %v at most: its next action needs the hook\n", r, f.options.Wait)
	}
}

func (f *installFlags) check(cmd *cobra.Command) error {
	for _, runtime := range f.options.Runtimes {
		if !slices.Contains(criuconf.Runtimes(), runtime) {
			return usage("--runtime %q: choose runc, crun or criu", runtime)
		}
	}
	if dir := f.options.Dir; cmd.Flags().Changed("dir") && (!f.options.InFront || !strings.HasPrefix(dir, "/")) {
		return usage("--dir %q: an absolute path, and only with --in-front", dir)
	}
	if f.options.Wait < 0 {
		return usage("--wait %v: a duration that is not negative", f.options.Wait)
	}
	root := cmd.Flags().Changed("root")
	if root && f.options.Root == "" {
		return usage("--root: a directory is wanted")
	}
	if binary := f.options.Binary; cmd.Flags().Changed("binary") && (!root || !strings.HasPrefix(binary, "/")) {
		return usage("--binary %q: an absolute path, and only with --root", binary)
	}
	return nil
}

func installText(w io.Writer, r *criuconf.Report) {
	for _, c := range r.Changes {
		action := string(c.Action)
		if r.DryRun && c.Action != criuconf.Unchanged {
			action = "would be " + action
		}
		fmt.Fprintf(w, "%s: %s", c.Path, action)
		if len(c.Runtimes) > 0 {
			fmt.Fprintf(w, " (%s)", strings.Join(c.Runtimes, ", "))
		}
		fmt.Fprintln(w)
		if !r.DryRun {
			continue
		}
		for _, line := range c.Diff {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	for _, p := range r.Running {
		switch {
		case r.DryRun:
			fmt.Fprintf(w, "%s: would be waited for\n", p)
		case p.Ended:
			fmt.Fprintf(w, "%s: has ended\n", p)
		default:
			fmt.Fprintf(w, "%s: still runs\n", p)
		}
	}
	if len(r.Changes) == 0 {
		fmt.Fprintln(w, "nothing to do")
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
}
