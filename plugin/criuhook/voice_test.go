package criuhook

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// That something cannot be logged is said to CRIU, and does no more harm.
func TestCannotLog(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := os.Mkdir(dir.Join(eventlog.FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	r := &run{Hook: &Hook{Log: &said}, Event: Event{Action: PreDump}, state: dir, began: time.Now()}
	r.log(nil)
	if said.Len() > 0 {
		t.Errorf("with nothing to log it says %q", said.String())
	}
	r.log(errors.New("the reason"))
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "ipc-cr: pre-dump: log: ") || !strings.Contains(got, dir.Path()) {
		t.Errorf("says %q", got)
	}
}

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

// The process that waits for CRIU's end says what it could not note.
func TestAfterLogs(t *testing.T) {
	nstest.Require(t, "root")
	criu, container := nstest.Start(t, nil, idleInside), nstest.Start(t, nil, idleInside)
	a := after{CRIU: processOf(t, criu), Init: processOf(t, container), Container: "the id"} // of no checkpoint
	began := time.Now().Truncate(time.Millisecond)
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	criu.Kill()
	var entries []LogEntry
	for deadline := time.Now().Add(20 * time.Second); len(entries) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is logged")
		}
		log, err := ReadLog()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range log.Entries {
			if e.CRIU == a.CRIU.PID && e.Init == a.Init.PID && !e.Time.Before(began) {
				entries = append(entries, e)
			}
		}
	}
	if e := entries[0]; e.Action != "after-dump" || e.Container != "the id" || !strings.HasPrefix(e.Error, unknown) || len(e.Error) == len(unknown) {
		t.Errorf("logged %+v", e)
	}
}
