package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
)

type logFlags struct {
	last int
	json bool
}

func newLog() *cobra.Command {
	f := &logFlags{}
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show what the hook did, and why it failed",
		Long: `Show what the hook did at CRIU's moments and what its helper processes did, the oldest
first: the time, the container, CRIU's action, what was done, warnings, and why it
failed. CRIU's own logs are deleted by most container engines. Actions that had
nothing to do are not in it.

The log is bounded and ends with the system: it is in /run/ipc-cr, for root alone, or
in $XDG_RUNTIME_DIR/ipc-cr for another user. Each line goes to the system log, too
(journalctl -t ipc-cr).`,
		Example: `  ipc-cr log
  ipc-cr log --last 10
  ipc-cr log --json | jq '.entries[] | select(.error)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().IntVarP(&f.last, "last", "n", 0, "show the last `N` entries only (default: all)")
	cmd.Flags().BoolVar(&f.json, "json", false, "show as JSON")
	return cmd
}

func (f *logFlags) run(cmd *cobra.Command) error {
	limited := cmd.Flags().Changed("last")
	if limited && f.last < 1 {
		return usage("--last %d: a number above 0 is wanted", f.last)
	}
	log, err := criuhook.ReadLog()
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if limited {
		log.Entries = log.Entries[max(len(log.Entries)-f.last, 0):]
	}
	out := outputOf(cmd, f.json)
	if log.Unreadable > 0 {
		warn(out.err, []string{fmt.Sprintf("%s of the log left out: cut off when a process was killed or the file system was full", count(log.Unreadable, "line"))})
	}
	if len(log.Entries) == 0 && !f.json {
		fmt.Fprintln(out.err, "ipc-cr: nothing is logged")
	}
	return out.print(log, func(w io.Writer) {
		for i := range log.Entries {
			entryText(w, &log.Entries[i])
		}
	})
}

// entryText prints each line of an entry with all that it is found by.
func entryText(w io.Writer, e *criuhook.LogEntry) {
	head := fmt.Sprintf("%s %s %s: ", e.Time.Format(time.RFC3339), printable(subject(e)), printable(e.Action))
	if len(e.Done) > 0 {
		fmt.Fprintln(w, head+printable(strings.Join(e.Done, "; ")))
	}
	for _, warning := range e.Warnings {
		fmt.Fprintln(w, head+"warning: "+printable(warning))
	}
	if e.Error != "" {
		fmt.Fprintln(w, head+"error: "+printable(e.Error))
	}
}

// shortID is how much of a container's id engines show.
const shortID = 12

// subject is whom an entry is about, as well as it is known.
func subject(e *criuhook.LogEntry) string {
	switch {
	case len(e.Container) > shortID:
		return e.Container[:shortID]
	case e.Container != "":
		return e.Container
	case e.Init > 0:
		return "pid:" + strconv.Itoa(e.Init)
	case e.CRIU > 0:
		return "criu:" + strconv.Itoa(e.CRIU)
	}
	return "-"
}
