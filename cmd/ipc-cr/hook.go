package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
	"github.com/ipc-cr/ipc-cr/plugin/infront"
)

// runHook is the whole action script. It knows no flags and needs no parser,
// which would take longer to start than most actions take.
func runHook(ctx context.Context, getenv func(string) string, stderr io.Writer) int {
	if err := hook(ctx, getenv, stderr); err != nil {
		fmt.Fprintf(stderr, "ipc-cr: %s\n", oneLine(err))
		return exitFailed
	}
	return exitDone
}

func hook(ctx context.Context, getenv func(string) string, stderr io.Writer) error {
	event, err := criuhook.FromEnv(getenv)
	if err != nil {
		criuhook.LogFailure(event, err)
		return err
	}
	if why := getenv(infront.OrdinaryEnv); why != "" && event.Action == criuhook.PreDump {
		fmt.Fprintf(stderr, "ipc-cr: %s\n", why)
	}
	defer withoutJobStop()() // CRIU's terminal may be ours
	h := &criuhook.Hook{Kinds: kinds, Log: stderr}
	return h.Run(ctx, event)
}

func newHook() *cobra.Command {
	return &cobra.Command{
		Use:   "criu-hook",
		Short: "Act as CRIU's action script (called by CRIU, not by people)",
		Long: `Act as CRIU's action script. CRIU says what it is doing in the environment
(CRTOOLS_SCRIPT_ACTION, CRTOOLS_IMAGE_DIR, CRTOOLS_INIT_PID) and gives no arguments,
so that a link named ` + idle.Name + ` to this binary is what its configuration names.

At an action that does not concern ipc-cr it does nothing and exits with 0.`,
		Example: `  CRTOOLS_SCRIPT_ACTION=post-dump CRTOOLS_IMAGE_DIR=/proc/1234/fd/4 CRTOOLS_INIT_PID=4242 ipc-cr criu-hook
  criu dump --tree 4242 --images-dir /tmp/checkpoint --action-script /usr/libexec/` + idle.Name,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hook(cmd.Context(), os.Getenv, cmd.ErrOrStderr())
		},
	}
}
