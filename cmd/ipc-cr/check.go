package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/plugin"
)

// checkReport is the document of check --json.
type checkReport struct {
	Features []plugin.Feature `json:"features"`
}

func newCheck() *cobra.Command {
	json := false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell what this kernel and these privileges allow",
		Long: `Tell, feature by feature, what this kernel and these privileges allow, and what
helps where something is missing. Everything is tried in a fresh IPC namespace.
The exit status is 1 if something that ipc-cr cannot do without is missing.`,
		Example: `  ipc-cr check
  unshare -Ur ipc-cr check --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCheck(outputOf(cmd, json)) },
	}
	cmd.Flags().BoolVar(&json, "json", false, "report as JSON")
	return cmd
}

func runCheck(out *output) error {
	report := checkReport{Features: plugin.Check()}
	if err := out.print(report, func(w io.Writer) { checkText(w, report.Features) }); err != nil {
		return err
	}
	for _, f := range report.Features {
		if f.Needed && !f.OK {
			return errors.New("check: something that ipc-cr needs is missing")
		}
	}
	return nil
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
