package warden

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// logged returns the log's entries.
func logged(t testing.TB, dir *state.Dir) []eventlog.Entry {
	t.Helper()
	entries, unreadable, err := eventlog.Read(dir)
	if err != nil || unreadable > 0 {
		t.Fatalf("log: %v, %d lines unreadable", err, unreadable)
	}
	return entries
}

// The warden logs what it has given back at CRIU's end.
func TestEndLogged(t *testing.T) {
	s := newScene(t)
	s.criu.Kill()
	until(t, "the warden has ended", func() bool { return !s.w.process.Alive() })
	entries := logged(t, s.dir)
	if len(entries) != 1 || entries[0].Action != "warden" || entries[0].CRIU != s.criu.PID() || entries[0].Dir != s.img || entries[0].Error != "" {
		t.Fatalf("logged %+v", entries)
	}
	want := []string{
		"CRIU has ended and did not ask for it",
		"tasks of neighbours thawed: " + strconv.Itoa(s.held.Tasks) + ", frozen for ",
		"images have their names again: " + msgImage,
	}
	if !slices.EqualFunc(entries[0].Done, want, strings.HasPrefix) {
		t.Errorf("done %q, want %q", entries[0].Done, want)
	}
}

// A hook process that asks for the end is told, and logs it itself.
func TestAskedEndIsNotLogged(t *testing.T) {
	s := newScene(t)
	must(t, s.w.End())
	s.criu.Kill()
	if entries := logged(t, s.dir); len(entries) > 0 {
		t.Errorf("logged %+v", entries)
	}
	p := newPost() // CRIU may end in the moment between
	p.dir, p.last = s.dir, eventlog.Entry{Action: "warden", Done: []string{"x"}}
	p.asked.Store(true)
	p.logEnd(nil)
	if entries := logged(t, s.dir); len(entries) > 0 {
		t.Errorf("logged %+v", entries)
	}
}

// The warden logs what it cannot put back at CRIU's end: nobody else hears of it.
func TestFailedEndLogged(t *testing.T) {
	s := newScene(t)
	must(t, os.WriteFile(filepath.Join(s.img, msgImage), []byte("somebody else's"), 0o600))
	s.criu.Kill()
	until(t, "the warden has ended", func() bool { return !s.w.process.Alive() })
	entries := logged(t, s.dir)
	if len(entries) != 1 {
		t.Fatalf("logged %+v", entries)
	}
	e := entries[0]
	if !strings.HasPrefix(e.Error, "after CRIU's end: ") || !strings.Contains(e.Error, msgImage+" and "+msgImage+Suffix+" are both there") || !strings.Contains(e.Error, s.img) {
		t.Errorf("error %q", e.Error)
	}
	if len(e.Done) != 2 || strings.Contains(strings.Join(e.Done, ""), "names again") {
		t.Errorf("done %q", e.Done)
	}
}
