package criuhook

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// A long answer is cut before it is kept: the state directory takes no file of any
// size, and a name that a container chose must not fail the action.
func TestKeptIsBounded(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	criu := nstest.Start(t, nil, idleInside)
	r := &run{Hook: &Hook{Log: &bytes.Buffer{}}, state: dir, Event: Event{Action: PreDump, ImagesDir: t.TempDir(), CRIU: processOf(t, criu)}}
	for range 100 {
		r.warn("%s", strings.Repeat("w", 4000))
	}
	if err := r.remember(errors.New(strings.Repeat("e", state.MaxFile))); err != nil {
		t.Fatal(err)
	}
	k, found, err := r.recall(PreDump)
	if err != nil || !found || !strings.HasPrefix(k.Error, "eee") || len(k.Warnings) < 2 || !strings.HasPrefix(k.Warnings[0], "www") {
		t.Errorf("%t, %v: %.200q, %d warnings", found, err, k.Error, len(k.Warnings))
	}
}
