package e2e_test

import (
	"slices"
	"testing"
	"time"
)

// TestHookWithoutQueues says what the hook costs a container that has none.
func TestHookWithoutQueues(t *testing.T) {
	each(t, []way{byRunc}, func(t *testing.T, w way) {
		with, without := w.start(t, newCrew(t), hookConf(t)), w.start(t, newCrew(t), scriptConf(t))
		var saves, loads [2][]time.Duration
		for range rounds(t, 5) {
			for i, sub := range []subject{with, without} {
				began := time.Now()
				mustSave(t, sub)
				saves[i] = append(saves[i], time.Since(began))
				began = time.Now()
				mustLoad(t, sub)
				loads[i] = append(loads[i], time.Since(began))
			}
		}
		t.Logf("checkpoint: %v with the hook, %v without", slices.Min(saves[0]), slices.Min(saves[1]))
		t.Logf("restore: %v with the hook, %v without", slices.Min(loads[0]), slices.Min(loads[1]))
		if found := queues(t, nsOf(t, with)); len(found) > 0 {
			t.Errorf("%d queues out of nothing", len(found))
		}
	})
}
