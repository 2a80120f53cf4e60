package msgq

import (
	"errors"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// A survey sees nothing but what is chosen.
func TestSelectedSurvey(t *testing.T) {
	for name, w := range map[string]*world{"linux": linuxWorld(t), "memory": memoryWorld(t)} {
		w.put(newBox(3, 3, letter{1, "one"}), newBox(5, 5, letter{1, "other"}), newBox(70, 7, letter{1, "three"}, letter{2, ""}), newBox(90, 9))
		chosen := Kind{}.Select(func(key int32, uid uint32) bool { return (key == 3 || key == 7 || key == 8) && uid == self().UID })
		w.look(func(k kernel.Kernel) {
			s, err := chosen.Survey(w.Target, k)
			check0(t, err)
			if got, want := s.Size(), (kind.Size{Objects: 2, Messages: 3, Bytes: 8}); got != want {
				t.Errorf("%s: size %+v, want %+v", name, got, want)
			}
			dir := newStage(t)
			_, err = s.Copy(ctx, w.Target, k, dir)
			check0(t, err)
			if got, want := s.Size(), (kind.Size{Objects: 2, Messages: 3, Bytes: 8}); got != want {
				t.Errorf("%s: copied %+v, want %+v", name, got, want)
			}
			check0(t, k.Send(5, letter{1, "more"}.msgbuf()))
			check0(t, k.Remove(90))
			check0(t, s.Recheck(w.Target, k))
			wantChanged(t, w, k, s, "a message", func() { check0(t, k.Send(70, letter{1, "more"}.msgbuf())) })
		})
	}
}

// A queue that comes to be chosen, or ceases to be, is a change.
func TestSelectedRecheck(t *testing.T) {
	for name, w := range map[string]*world{"linux": linuxWorld(t), "memory": memoryWorld(t)} {
		w.put(newBox(5, 5))
		chosen := Kind{}.Select(func(key int32, _ uint32) bool { return key > 6 })
		w.look(func(k kernel.Kernel) {
			s, err := chosen.Survey(w.Target, k)
			check0(t, err)
			_, err = s.Copy(ctx, w.Target, k, newStage(t))
			check0(t, err)
			wantChanged(t, w, k, s, name+": a queue", func() { must(k.Create(7, 0o600, self())) })
		})
	}
}

func wantChanged(t *testing.T, w *world, k kernel.Kernel, s kind.Survey, what string, change func()) {
	t.Helper()
	check0(t, s.Recheck(w.Target, k))
	change()
	if err := s.Recheck(w.Target, k); !errors.Is(err, kind.ErrChanged) {
		t.Errorf("%s: %v, want ErrChanged", what, err)
	}
}

// Busy is what is chosen: of the others no time is looked at.
func TestSelectedBusy(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(5, 5), newBox(6, 6, letter{1, "x"}))
	for key, want := range map[int32]string{5: "queue 5 (key 0x5)", 6: "queue 6 (key 0x6)", 7: ""} {
		w.look(func(k kernel.Kernel) {
			s, err := Kind{}.Select(func(other int32, _ uint32) bool { return other == key }).Survey(w.Target, k)
			check0(t, err)
			_, err = s.Copy(ctx, w.Target, k, newStage(t))
			check0(t, err)
			if got := s.Busy(0, 1<<62, nil); got != want {
				t.Errorf("key %d: busy %q, want %q", key, got, want)
			}
		})
	}
}

func newStage(t testing.TB) *images.Stage {
	t.Helper()
	dir := must(images.OpenDir(t.TempDir()))
	t.Cleanup(func() { dir.Close() })
	return dir.Stage(1, int(self().UID), int(self().GID))
}
