package freeze

import (
	"testing"
	"time"
)

// TestTracersAreBounded: there is one a process of several threads, until there
// are too many, and one for all others.
func TestTracersAreBounded(t *testing.T) {
	h := &holder{tracers: tracers{byProcess: map[int]*tracer{}}}
	common := h.tracers.of(1_000_000, false)
	users := map[*tracer]int{}
	for pid := range 2*maxTracers + 1 {
		by := h.tracers.of(pid, true)
		if users[by]++; by == common || pid < maxTracers && users[by] > 1 {
			t.Fatalf("process %d shares", pid)
		}
		if h.tracers.of(pid, true) != by || h.tracers.of(-pid-1, false) != common {
			t.Fatalf("process %d has two", pid)
		}
	}
	if want := maxTracers + 1; len(h.tracers.all) != want {
		t.Errorf("%d threads for %d processes, want %d", len(h.tracers.all), 2*maxTracers+1, want)
	}
	for by, n := range users {
		if n > 3 {
			t.Errorf("thread %d has %d processes", by.tid, n)
		}
	}
	began := time.Now()
	if stuck, err := h.release(); len(stuck) > 0 || err != nil {
		t.Errorf("%d threads are stuck: %v", len(stuck), err)
	}
	t.Logf("%d threads ended in %v", maxTracers, time.Since(began))
}
