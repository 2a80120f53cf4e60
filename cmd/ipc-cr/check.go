package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuconf"
)

// checkReport is the document of check --json.
type checkReport struct {
	Features []plugin.Feature  `json:"features"`
	Hooks    []criuconf.Hook   `json:"hooks"`
	Fronts   []criuconf.Front  `json:"fronts"`
	Settings criuconf.Settings `json:"settings"`
}

func newCheck() *cobra.Command {
	json := false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell what this kernel and these privileges allow",
		Long: `Tell, feature by feature, what this kernel and these privileges allow, and what
helps where something is missing. Everything is tried in a fresh IPC namespace.
Then tell of each container runtime whether its checkpoints run the hook, and with
what settings; and whether ipc-cr is in front of criu, for the PATH of this command
and for that of services. The exit status is 1 if something that ipc-cr cannot do without is
missing, or if the settings are wrong.`,
		Example: `  ipc-cr check
  unshare -Ur ipc-cr check --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCheck(cmd.Context(), outputOf(cmd, json)) },
	}
	cmd.Flags().BoolVar(&json, "json", false, "report as JSON")
	return cmd
}

func runCheck(ctx context.Context, out *output) error {
	hooks, fronts := criuconf.Check(ctx)
	report := checkReport{
		Features: plugin.Check(), Hooks: hooks, Fronts: fronts, Settings: criuconf.CheckSettings(),
	}
	if err := out.print(report, func(w io.Writer) { report.text(w) }); err != nil {
		return err
	}
	var missing []string
	for _, f := range report.Features {
		if f.Needed && !f.OK {
			missing = append(missing, f.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("check: ipc-cr cannot do without: %s", strings.Join(missing, ", "))
	}
	if !report.Settings.OK {
		return errors.New("check: the settings of the hook are wrong")
	}
	return nil
}

func (r *checkReport) text(w io.Writer) {
	checkText(w, r.Features)
	hooksText(w, r.Hooks)
	frontsText(w, r.Fronts)
	settingsText(w, r.Settings)
}

func checkText(w io.Writer, features []plugin.Feature) {
	for _, f := range features {
		if f.OK {
			fmt.Fprintf(w, "yes  %s\n", f.Name)
			continue
		}
		fmt.Fprintf(w, "no   %s: %s\n     needed for %s; remedy: %s\n", f.Name, f.Detail, f.For, f.Remedy)
	}
}
