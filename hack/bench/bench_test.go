package main

import (
	"encoding/binary"
	"errors"
	"maps"
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
	var r row
	r.add("x", result{operation: 5, process: 9, peak: 1})
	r.add("x", result{operation: 6, process: 8, peak: 2})
	if want := (result{operation: 5, process: 8, peak: 2}); r.results["x"] != want {
		t.Errorf("got %+v, want %+v", r.results["x"], want)
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct {
		shape     shape
		fixed     int
		operation time.Duration
		want      pace
	}{
		{shape{}, 0, time.Millisecond, pace{15, 5}},
		{shape{}, 0, time.Second, pace{15, 1}},
		{shape{}, 0, 3 * time.Second, pace{3, 1}},
		{shape{}, 20, time.Millisecond, pace{20, 5}},
		{shape{}, 20, 3 * time.Second, pace{20, 1}},
		{shape{command: true}, 0, 0, pace{15, 1}},
		{shape{command: true, runs: 3}, 0, 0, pace{3, 1}},
	} {
		b := bench{runs: c.fixed}
		if got := b.pace(&c.shape, c.operation); got != c.want {
			t.Errorf("%+v, -runs %d, %v: got %+v, want %+v", c.shape, c.fixed, c.operation, got, c.want)
		}
	}
}

// TestAlternate: a first round of single operations does not count, and whoever
// fails has no further turn.
func TestAlternate(t *testing.T) {
	var b bench
	turns := map[string][]int{}
	r, err := b.alternate(t.Context(), &shape{}, copying, []contender{{name: "good"}, {name: "bad"}},
		func(c *contender, times int) (result, error) {
			turns[c.name] = append(turns[c.name], times)
			if c.name == "bad" && times > 1 {
				return result{}, errors.New("wrong")
			}
			return result{operation: time.Duration(times)}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]int{1}, slices.Repeat([]int{5}, 15)...); !slices.Equal(turns["good"], want) {
		t.Errorf("turns of the good: %v, want %v", turns["good"], want)
	}
	if want := []int{1, 5}; !slices.Equal(turns["bad"], want) {
		t.Errorf("turns of the bad: %v, want %v", turns["bad"], want)
	}
	if want := map[string]result{"good": {operation: 5}}; !maps.Equal(r.results, want) || !r.failed["bad"] || b.failures == nil {
		t.Errorf("results %v, want %v; failed %v, failures %v", r.results, want, r.failed, b.failures)
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
