package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// names are the contenders in the order of the columns.
var names = []string{"criu-like", "floor", ipcCR}

const legend = `Times: one operation in ms, the smallest of RUNS (turns x operations in one process). Peak: largest resident set in MiB.
In the rows marked "command" each process does one operation, cold, and ipc-cr is bin/ipc-cr; in all others ipc-cr is
the library, called by a small program.`

// printTable prints the rows and returns how many limits they do not keep.
func printTable(w io.Writer, rows []row) (over int, err error) {
	fmt.Fprintln(w, machine())
	fmt.Fprintln(w, legend)
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header(), "\t"))
	for i := range rows {
		cells, n := rows[i].cells()
		over += n
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return over, t.Flush()
}

func header() []string {
	cells := slices.Concat([]string{"SHAPE", "OPERATION", "RUNS"}, names, []string{"criu-like/floor", "ipc-cr/floor"})
	for _, name := range names {
		cells = append(cells, "peak "+name)
	}
	return append(cells, "LIMITS")
}

func (r *row) cells() (cells []string, over int) {
	cells = []string{r.shape.name, string(r.op), r.rhythm()}
	for _, name := range names {
		cells = append(cells, r.cell(name, func(x result) string { return fmt.Sprintf("%.2f", milliseconds(x.operation)) }))
	}
	for _, name := range []string{"criu-like", ipcCR} {
		cells = append(cells, r.cell("floor", func(floor result) string {
			return r.cell(name, func(x result) string { return fmt.Sprintf("%.2f", ratio(x, floor)) })
		}))
	}
	for _, name := range names {
		cells = append(cells, r.cell(name, func(x result) string { return fmt.Sprintf("%.1f", float64(x.peak)/mib) }))
	}
	verdicts, over := r.verdicts()
	return append(cells, verdicts), over
}

func (r *row) rhythm() string {
	text := fmt.Sprintf("%dx%d", r.pace.runs, r.pace.times)
	if r.shape.command {
		text += " command"
	}
	return text
}

// cell prints a contender's result, or a dash if it has none.
func (r *row) cell(name string, text func(result) string) string {
	if x, ok := r.results[name]; ok {
		return text(x)
	}
	return "-"
}

func (r *row) verdicts() (text string, over int) {
	var verdicts []string
	for i := range r.shape.limits {
		l := &r.shape.limits[i]
		if l.op != r.op {
			continue
		}
		verdict, kept := l.judge(r.results)
		if !kept {
			over++
		}
		verdicts = append(verdicts, verdict)
	}
	return strings.Join(verdicts, "; "), over
}

func machine() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("unknown")
	}
	return fmt.Sprintf("Linux %s, %s, %d CPUs, %s", strings.TrimSpace(string(release)), runtime.GOARCH,
		runtime.NumCPU(), runtime.Version())
}
