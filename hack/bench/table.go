package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// printTable prints the rows and returns how many limits they do not keep.
func printTable(w io.Writer, rows []row, contenders []contender) (over int, err error) {
	fmt.Fprintln(w, machine())
	fmt.Fprintln(w, "Times: the operation in ms, smallest of so many runs. Peak: largest resident set in MiB.")
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header(contenders), "\t"))
	for i := range rows {
		cells, n := rows[i].cells(contenders)
		over += n
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return over, t.Flush()
}

func header(contenders []contender) []string {
	cells := []string{"SHAPE", "OPERATION", "RUNS"}
	for _, c := range contenders {
		cells = append(cells, c.name)
	}
	cells = append(cells, "criu-like/floor", "ipc-cr/floor")
	for _, c := range contenders {
		cells = append(cells, "peak "+c.name)
	}
	return append(cells, "LIMITS")
}

func (r *row) cells(contenders []contender) (cells []string, over int) {
	cells = []string{r.shape.name, string(r.op), fmt.Sprint(r.runs)}
	for _, c := range contenders {
		cells = append(cells, r.cell(c.name, func(x result) string { return fmt.Sprintf("%.2f", milliseconds(x.operation)) }))
	}
	for _, name := range []string{"criu-like", "ipc-cr"} {
		cells = append(cells, r.cell("floor", func(floor result) string {
			return r.cell(name, func(x result) string { return fmt.Sprintf("%.2f", ratio(x, floor)) })
		}))
	}
	for _, c := range contenders {
		cells = append(cells, r.cell(c.name, func(x result) string { return fmt.Sprintf("%.1f", float64(x.peak)/mib) }))
	}
	verdicts, over := r.verdicts()
	return append(cells, verdicts), over
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
