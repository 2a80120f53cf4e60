package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
)

type restoreFlags struct {
	target     targetFlags
	fresh      bool
	host       bool
	pin        string
	dir        string
	number     uint32
	onConflict string
	dryRun     bool
	json       bool
}

// policies are the values of --on-conflict.
var policies = map[string]plugin.Policy{"fail": plugin.Fail, "adopt": plugin.Adopt, "replace": plugin.Replace}

func newRestore() *cobra.Command {
	f := &restoreFlags{}
	cmd := &cobra.Command{
		Use:   "restore (--pid PID | --ns PATH | --new [--pin PATH]) --images-dir DIR [-- COMMAND ARG...]",
		Short: "Recreate message queues from image files in an IPC namespace",
		Long: `Recreate the message queues of an images directory, CRIU's or ipc-cr's, in an IPC
namespace: with their ids, keys, owners, creators, limits and messages. All of
them are made, or none. Queues that are there already and equal are left alone.

One that is in the way refuses the restore (--on-conflict fail). With adopt, one with
the same key, id, owner and mode stays, and is filled if nobody has used it. With
replace it is saved, and then the image's is made in its place; it comes back if a
later step fails.

If there is something to make, the tasks that live in the namespace are frozen
meanwhile, ten seconds at most.

The host's own namespace, which is that of every process outside containers, has to
be asked for with --host.

With --new the namespace is a fresh one: COMMAND runs in it, or --pin keeps it at a
path for runc's namespace path or podman's --ipc ns:PATH (umount and remove the
file to end it).`,
		Example: `  ipc-cr restore --pid 4242 --images-dir /tmp/checkpoint --dry-run
  ipc-cr restore --new --images-dir /tmp/checkpoint -- ipcs -q
  mkdir -p /run/ipcns && ipc-cr restore --new --pin /run/ipcns/web --images-dir /tmp/checkpoint`,
		Args: commandAfterDash,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.target.add(cmd)
	cmd.Flags().BoolVar(&f.fresh, "new", false, "a fresh IPC namespace")
	cmd.Flags().BoolVar(&f.host, "host", false, "restore into the host's IPC namespace, if that is the one: else it is refused")
	cmd.Flags().StringVar(&f.pin, "pin", "", "keep the fresh namespace at `PATH`")
	cmd.Flags().StringVarP(&f.dir, "images-dir", "D", "", "read the images from `DIR`")
	cmd.Flags().Uint32Var(&f.number, "ns-id", 0, "number `N` of the namespace in the names of the files (default: the only one)")
	cmd.Flags().StringVar(&f.onConflict, "on-conflict", "fail", "what to do about a queue that is in the way: `fail|adopt|replace`")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything and report what would be done")
	cmd.Flags().BoolVar(&f.json, "json", false, "report as JSON")
	_ = cmd.MarkFlagDirname("images-dir")
	_ = cmd.MarkFlagFilename("pin")
	_ = cmd.RegisterFlagCompletionFunc("on-conflict", cobra.FixedCompletions(
		[]string{"fail", "adopt", "replace"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func commandAfterDash(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
		return fmt.Errorf("unexpected argument %q: a command stands after --", args[0])
	}
	return nil
}

func (f *restoreFlags) run(cmd *cobra.Command, command []string) error {
	policy, err := f.check(cmd, command)
	if err != nil {
		return err
	}
	var program string
	if len(command) > 0 {
		if program, err = exec.LookPath(command[0]); err != nil {
			return fmt.Errorf("restore: find the command: %w", err)
		}
	}
	if err := f.pinFree(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	ns, err := f.open(cmd)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer ns.Close()
	if err := f.restore(cmd, ns, policy); err != nil || f.dryRun {
		return err
	}
	if program == "" {
		return nil
	}
	err = ns.Run(func() error { return syscall.Exec(program, command, os.Environ()) })
	return errors.Join(fmt.Errorf("restore: run %s: %w", program, err), f.unpin())
}

// pinFree refuses early what Pin would refuse after the restore.
func (f *restoreFlags) pinFree() error {
	if f.pin == "" {
		return nil
	}
	err := nsenter.MayPin(f.pin)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: make the directory first (mkdir -p %s)", err, filepath.Dir(f.pin))
	case errors.Is(err, os.ErrExist):
		return fmt.Errorf("%w: remove it (a pin: umount it first), or choose another path", err)
	}
	return err
}

func (f *restoreFlags) unpin() error {
	if f.pin == "" {
		return nil
	}
	return nsenter.Unpin(f.pin)
}

func (f *restoreFlags) check(cmd *cobra.Command, command []string) (plugin.Policy, error) {
	if err := oneOf(cmd, []string{"pid", "ns", "new"}, "images-dir"); err != nil {
		return 0, err
	}
	policy, known := policies[f.onConflict]
	switch {
	case !known:
		return 0, usage("--on-conflict %q: choose fail, adopt or replace", f.onConflict)
	case !f.fresh && len(command) > 0:
		return 0, usage("a command runs in a fresh namespace only: give --new")
	case !f.fresh && f.pin != "":
		return 0, usage("--pin keeps a fresh namespace: give --new")
	case f.fresh && f.host:
		return 0, usage("--host: a fresh namespace is not the host's")
	case f.fresh && f.pin == "" && len(command) == 0 && !f.dryRun:
		return 0, usage("--new alone would end with the command: give --pin PATH or -- COMMAND")
	}
	return policy, nil
}

func (f *restoreFlags) open(cmd *cobra.Command) (*nsenter.Namespace, error) {
	if f.fresh {
		return nsenter.New()
	}
	return f.target.open(cmd)
}

func (f *restoreFlags) restore(cmd *cobra.Command, ns *nsenter.Namespace, policy plugin.Policy) error {
	number := int64(images.Auto)
	if cmd.Flags().Changed("ns-id") {
		number = int64(f.number)
	}
	out := outputOf(cmd, f.json)
	bar := newBar(out.err, "restoring")
	stoppable := withoutJobStop()
	report, err := plugin.Restore(cmd.Context(), plugin.RestoreOptions{
		Kinds: kinds, Namespace: ns, Fresh: f.fresh, Host: f.host, Dir: f.dir, Number: number,
		OnConflict: policy, Existing: plugin.ExistingAdopt, Again: plugin.AgainKeep, DryRun: f.dryRun, Progress: bar.progress(),
	})
	stoppable()
	bar.done()
	if _, conflict := errors.AsType[*plugin.ConflictError](err); conflict {
		return fmt.Errorf("%w; --on-conflict adopt or replace decides otherwise", err)
	}
	if err != nil {
		return err
	}
	if f.pin != "" && !f.dryRun { // before anybody is told that it is done
		if err := ns.Pin(f.pin); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	warn(out.err, report.Warnings)
	done := fmt.Sprintf("restore: %s is restored into %s", report.Dir, nsenter.Name(report.Namespace.Inode, report.Host))
	if f.dryRun {
		done = "restore: nothing was changed"
	}
	if err := out.printDone(done, report, func(w io.Writer) { restoreText(w, report) }); err != nil {
		return err
	}
	if n := report.Actions[plugin.ActionConflict]; n > 0 {
		return fmt.Errorf("restore: %s: without --dry-run it would change nothing and fail", count(n, "conflict"))
	}
	return nil
}
