package msgq

import (
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// One long queue moves the progress while it is under way, and ends it at its
// number of messages.
func TestProgressWithinAQueue(t *testing.T) {
	const messages = 3*pollEvery + 5
	w := memoryWorld(t)
	var seen []int64
	watch := func(watched string) {
		seen = nil
		w.Done = &kind.Progress{}
		w.mem.Fail = func(call string, _ int) error {
			if call == watched {
				seen = append(seen, w.Done.Messages())
			}
			return nil
		}
	}
	want := func(what string) {
		t.Helper()
		steps := slices.Compact(slices.Clone(seen))
		if len(steps) < 4 || !slices.IsSorted(steps) || w.Done.Messages() != messages {
			t.Errorf("%s: %v, then %d: want at least 4 steps, then %d", what, steps, w.Done.Messages(), messages)
		}
	}
	w.put(newBox(1, 1, many(messages, 1)...))
	watch("Copy")
	_, err := w.save()
	check0(t, err)
	want("copy")

	w = memoryWorld(t)
	watch("Send")
	check0(t, w.restore(imageOf(t, newBox(1, 1, many(messages, 1)...)), kind.Fail))
	want("restore")
}
