package freeze

import (
	"testing"
	"time"
)

// TestTracersAreBounded: there is one a process, until there are too many.
func TestTracersAreBounded(t *testing.T) {
	h := &holder{tracers: tracers{byProcess: map[int]*tracer{}}}
	users := map[*tracer]int{}
	for pid := range 2*maxTracers + 1 {
		by := h.tracers.of(pid)
		if users[by]++; pid < maxTracers && users[by] > 1 {
			t.Fatalf("process %d shares", pid)
		}
		if h.tracers.of(pid) != by {
			t.Fatalf("process %d has two", pid)
		}
	}
	if len(users) != maxTracers || len(h.tracers.all) != maxTracers {
		t.Errorf("%d threads for %d processes, want %d", len(users), 2*maxTracers+1, maxTracers)
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
