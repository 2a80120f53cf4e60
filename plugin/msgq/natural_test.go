package msgq

import (
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// trace returns the calls of a restore that make and remove queues.
func trace(w *world, boxes ...box) string {
	var calls []string
	w.mem.Fail = func(call string, _ int) error {
		switch call {
		case "SetNextID":
			calls = append(calls, "ask")
		case "Create", "Remove":
			calls = append(calls, strings.ToLower(call))
		}
		return nil
	}
	check0(w.t, w.restore(imageOf(w.t, boxes...), kind.Fail))
	w.mem.Fail = nil
	w.want("restored", boxes...)
	return strings.Join(calls, " ")
}

func TestNaturalIDs(t *testing.T) {
	run := func(ids ...uint32) (boxes []box) {
		for _, id := range ids {
			boxes = append(boxes, newBox(id, id+1))
		}
		return boxes
	}
	for _, c := range []struct {
		name  string
		build func(w *world)
		boxes []box
		calls string
	}{
		{"one after the other", nil, run(0, 1, 2), "create create create"},
		{"not from 0", nil, run(1, 2), "ask create ask create"},
		{"with a gap", nil, run(0, 1, 3, 4), "create create ask create ask create"},
		{"a high one between", nil, run(0, 1, 70000, 2), "create create ask create create"},
		{"a used namespace", used, run(0, 1), "create remove ask create ask create"},
		{"the first is private", nil, []box{newBox(0, 0), newBox(1, 5)}, "ask create ask create"},
		{"a later one is private", nil, []box{newBox(0, 5), newBox(1, 0)}, "create create"},
	} {
		w := memoryWorld(t)
		if c.build != nil {
			c.build(w)
		}
		if got := trace(w, c.boxes...); got != c.calls {
			t.Errorf("%s: %s, want %s", c.name, got, c.calls)
		}
	}
}

// Beside other queues nothing is guessed.
func TestNaturalIDsBesideOthers(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(9, 9))
	image := []box{newBox(0, 1), newBox(1, 2)}
	asked := 0
	w.mem.Fail = func(call string, _ int) error {
		if call == "SetNextID" {
			asked++
		}
		return nil
	}
	check0(t, w.restore(imageOf(t, image...), kind.Fail))
	w.want("restored", append(slices.Clone(image), newBox(9, 9))...)
	if asked != 2 {
		t.Errorf("asked for %d ids, want 2", asked)
	}
}

// More queues than the kernel's first search for an index takes in.
func TestNaturalIDsOfManyQueues(t *testing.T) {
	worlds(t, func(t *testing.T, fresh func(testing.TB) *world) {
		var boxes []box
		for i := range uint32(300) {
			boxes = append(boxes, newBox(i, i+1))
		}
		w := fresh(t)
		w.mustRestore(imageOf(t, boxes...))
		w.want("restored", boxes...)
	})
}

func TestNaturalIDsInAUsedNamespace(t *testing.T) {
	w := linuxWorld(t)
	w.look(func(k kernel.Kernel) {
		for range 70 {
			check0(t, k.Remove(must(k.Create(0, 0, self()))))
		}
	})
	boxes := []box{newBox(0, 1, letter{1, "x"}), newBox(1, 0), newBox(2, 3), newBox(64, 0)}
	w.mustRestore(imageOf(t, boxes...))
	w.want("restored", boxes...)
}
