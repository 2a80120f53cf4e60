package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
)

func warn(w io.Writer, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(w, "ipc-cr: warning: %s\n", printable(warning))
	}
}

// printable is a text as a terminal may have it, on one line: what an image or a
// container has named may hold control characters.
func printable(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if r != utf8.RuneError && unicode.IsPrint(r) {
			b.WriteString(text[:size])
		} else {
			quoted := strconv.QuoteToASCII(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[size:]
	}
	return b.String()
}

func checkpointText(w io.Writer, r *plugin.CheckpointReport) {
	fmt.Fprintf(w, "checkpointed %s to %s as number %d: %s in %s\n",
		nsenter.Name(r.Namespace.Inode, r.Host), r.Dir, r.Number, sizes(r.Objects), round(r.Duration))
	if r.Attempts > 1 {
		fmt.Fprintf(w, "  the namespace was quiet at attempt %d\n", r.Attempts)
	}
	if r.Method == plugin.MethodBPF {
		fmt.Fprintln(w, "  copied with BPF")
	}
	frozenText(w, r.Frozen)
	limitsText(w, r.Limits)
	for _, what := range r.NotKnown {
		fmt.Fprintf(w, "  not known: %s\n", what)
	}
}

func restoreText(w io.Writer, r *plugin.RestoreReport) {
	done := "restored"
	switch {
	case r.DryRun:
		done = "would restore"
	case len(r.Image) > 0 && changes(r.Actions) == 0:
		done = "nothing to restore of"
	}
	fmt.Fprintf(w, "%s %s from %s (number %d) into %s: %s in %s\n",
		done, sizes(r.Image), r.Dir, r.Number, nsenter.Name(r.Namespace.Inode, r.Host), r.Done(), round(r.Duration))
	if r.DryRun {
		for _, step := range r.Steps {
			fmt.Fprintln(w, "  "+strings.TrimSpace(fmt.Sprintf("%-8s %s %s", step.Action, step.Object, step.Reason)))
		}
	}
	if r.Recorded != "" {
		fmt.Fprintf(w, "  %s\n", r.Recorded)
	}
	frozenText(w, r.Frozen)
	limitsText(w, r.Limits)
}

// changes counts what was made, replaced or removed.
func changes(actions map[plugin.Action]int) (n int) {
	for _, a := range []plugin.Action{plugin.ActionMake, plugin.ActionRemake, plugin.ActionReplace, plugin.ActionFill, plugin.ActionRemove} {
		n += actions[a]
	}
	return n
}

func frozenText(w io.Writer, f *plugin.Frozen) {
	if f == nil || f.Tasks == 0 && f.Unreadable == 0 && len(f.Loose) == 0 {
		return
	}
	fmt.Fprintf(w, "  %s frozen for %s\n", count(f.Tasks, "task"), round(f.Duration))
	if f.Unreadable > 0 {
		fmt.Fprintf(w, "  %s could not be looked at, and may live in the namespace or not\n", count(f.Unreadable, "task"))
	}
	if f.Unseen {
		fmt.Fprintln(w, "  tasks were born and ended too fast to be looked at")
	}
	for _, task := range f.Loose {
		fmt.Fprintf(w, "  not stopped: %s\n", task)
	}
}

func limitsText(w io.Writer, limits []plugin.LimitChange) {
	for _, l := range limits {
		fmt.Fprintf(w, "  %s was raised from %d to %d for the moment, and put back\n", l.Name, l.Old, l.Raised)
	}
}

// sizes counts what was carried: "2 queues, 17 messages, 1234 bytes".
func sizes(all []plugin.Kept) string {
	total := plugin.Size{}
	for _, kept := range all {
		total.Objects += kept.Objects
		total.Messages += kept.Messages
		total.Bytes += kept.Bytes
	}
	return fmt.Sprintf("%s, %s, %s", count(total.Objects, "queue"), count(int(total.Messages), "message"), count(int(total.Bytes), "byte"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
