package main

import (
	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// targetFlags choose a namespace.
type targetFlags struct {
	pid int
	ns  string
}

func (f *targetFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&f.pid, "pid", "t", 0, "the IPC namespace of process `PID`")
	cmd.Flags().StringVar(&f.ns, "ns", "", "the IPC namespace at `PATH`, such as /proc/4242/ns/ipc or a pinned one")
	_ = cmd.MarkFlagFilename("ns")
}

func (f *targetFlags) open(cmd *cobra.Command) (*nsenter.Namespace, error) {
	if cmd.Flags().Changed("ns") {
		return nsenter.OpenPath(f.ns)
	}
	if f.pid <= 0 {
		return nil, usage("--pid %d: a process id is above 0", f.pid)
	}
	return nsenter.OpenPID(f.pid)
}
