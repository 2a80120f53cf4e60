package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	results := func(ipccr time.Duration) map[string]result {
		return map[string]result{
			"criu-like": {operation: 300},
			"floor":     {operation: 100},
			"ipc-cr":    {operation: ipccr, process: 4 * time.Millisecond, peak: 33 * mib},
		}
	}
	for _, c := range []struct {
		limit   limit
		ipccr   time.Duration
		verdict string
		kept    bool
	}{
		{atMostFloor(copying, 1.25), 125, "<= 1.25x floor: 1.25 PASS", true},
		{atMostFloor(copying, 1.25), 126, "<= 1.25x floor: 1.26 over", false},
		{fasterThanCRIU(copying, 2.5), 120, ">= 2.5x faster than criu-like: 2.50 PASS", true},
		{fasterThanCRIU(copying, 2.5), 150, ">= 2.5x faster than criu-like: 2.00 over", false},
		{processAtMost(copying, 5), 1, "process <= 5 ms: 4.00 PASS", true},
		{processAtMost(copying, 3), 1, "process <= 3 ms: 4.00 over", false},
		{peakAtMost(copying, 32*mib), 1, "peak <= 32 MiB: 33.00 over", false},
	} {
		verdict, kept := c.limit.judge(results(c.ipccr))
		if verdict != c.verdict || kept != c.kept {
			t.Errorf("%v: got %q, %v; want %q, %v", c.ipccr, verdict, kept, c.verdict, c.kept)
		}
	}
}

func TestJudgeNotMeasured(t *testing.T) {
	l := atMostFloor(copying, 1)
	verdict, kept := l.judge(map[string]result{"criu-like": {}, "floor": {operation: 1}})
	if want := "<= 1.00x floor: not measured"; verdict != want || kept {
		t.Errorf("got %q, %v; want %q, false", verdict, kept, want)
	}
}

func TestAddKeepsTheBestTimesAndTheLargestPeak(t *testing.T) {
	r := row{results: map[string]result{}}
	r.add("x", result{operation: 5, process: 9, peak: 1})
	r.add("x", result{operation: 6, process: 8, peak: 2})
	if want := (result{operation: 5, process: 8, peak: 2}); r.results["x"] != want {
		t.Errorf("got %+v, want %+v", r.results["x"], want)
	}
}

func TestWritePlan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plan")
	s := shape{queues: [][]int{{1, 20000}, {3}}}
	if err := s.writePlan(path); err != nil {
		t.Fatal(err)
	}
	plan, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]uint32, len(plan)/4)
	if _, err := binary.Decode(plan, binary.NativeEndian, words); err != nil {
		t.Fatal(err)
	}
	if want := []uint32{20000, 20001, 2, 3, 2, 1, 1, 20000, 3}; !slices.Equal(words, want) {
		t.Errorf("got %v, want %v", words, want)
	}
}

func TestNamespaceLimitsNeverBelowAFreshNamespaces(t *testing.T) {
	for _, c := range []struct {
		shape          shape
		msgmax, msgmnb int
	}{
		{shape{queues: uniform(2, 10, 1)}, 8192, 16384},
		{shape{queues: uniform(1, 20000, 0)}, 8192, 20000},
		{shape{queues: uniform(1, 1, 1), msgmax: mib}, mib, 16384},
		{shape{queues: oneLarge(10, 1, mib)}, mib, mib + 9},
	} {
		msgmax, msgmnb := c.shape.namespaceLimits()
		if msgmax != c.msgmax || msgmnb != c.msgmnb {
			t.Errorf("got %d, %d; want %d, %d", msgmax, msgmnb, c.msgmax, c.msgmnb)
		}
	}
}
