package main

import "fmt"

// A limit is one thing asked of ipc-cr.
type limit struct {
	op      operation
	against string // the other contender whose results count, if not ""
	text    string // "<= 1.10x floor"
	bound   float64
	atMost  bool
	value   func(results map[string]result) float64
}

func atMostFloor(op operation, bound float64) limit {
	return limit{op, "floor", fmt.Sprintf("<= %.2fx floor", bound), bound, true, func(r map[string]result) float64 {
		return ratio(r["ipc-cr"], r["floor"])
	}}
}

func fasterThanCRIU(op operation, bound float64) limit {
	return limit{op, "criu-like", fmt.Sprintf(">= %gx faster than criu-like", bound), bound, false, func(r map[string]result) float64 {
		return ratio(r["criu-like"], r["ipc-cr"])
	}}
}

// processFasterThanCRIU compares whole processes, exec to exit.
func processFasterThanCRIU(op operation, factor float64) limit {
	return limit{op, "criu-like", fmt.Sprintf("process >= %gx faster than criu-like", factor), factor, false, func(r map[string]result) float64 {
		return float64(r["criu-like"].process) / float64(r["ipc-cr"].process)
	}}
}

// processAtMost limits the whole process, exec to exit.
func processAtMost(op operation, ms float64) limit {
	return limit{op, "", fmt.Sprintf("process <= %g ms", ms), ms, true, func(r map[string]result) float64 {
		return milliseconds(r["ipc-cr"].process)
	}}
}

func peakAtMost(op operation, bytes int64) limit {
	bound := float64(bytes) / mib
	return limit{op, "", fmt.Sprintf("peak <= %g MiB", bound), bound, true, func(r map[string]result) float64 {
		return float64(r["ipc-cr"].peak) / mib
	}}
}

func ratio(a, b result) float64 {
	return float64(a.operation) / float64(b.operation)
}

// judge says how the results stand against the limit, and whether they keep it;
// what was not measured does not.
func (l *limit) judge(r map[string]result) (verdict string, kept bool) {
	for _, name := range []string{ipcCR, l.against} {
		if _, measured := r[name]; name != "" && !measured {
			return l.text + ": not measured", false
		}
	}
	value := l.value(r)
	kept = value >= l.bound
	if l.atMost {
		kept = value <= l.bound
	}
	mark := "over"
	if kept {
		mark = "PASS"
	}
	return fmt.Sprintf("%s: %.2f %s", l.text, value, mark), kept
}
