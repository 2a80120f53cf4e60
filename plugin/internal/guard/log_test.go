package guard

import (
	"os"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// awaitLogged waits for the log's first entry.
func awaitLogged(t *testing.T, dir *state.Dir) eventlog.Entry {
	t.Helper()
	var entries []eventlog.Entry
	until(t, "an entry in the log", func() bool {
		var err error
		if entries, _, err = eventlog.Read(dir); err != nil {
			t.Fatal(err)
		}
		return len(entries) > 0
	})
	if len(entries) != 1 || entries[0].Action != "guard" {
		t.Errorf("logged %+v", entries)
	}
	return entries[0]
}

// That a guard had something to put back, and did, is logged; that it was released is
// not.
func TestPutBackLogged(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	g := start(t, ns, dir)
	if err := g.Set(change(oldMax, raised)); err != nil {
		t.Fatal(err)
	}
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir.Join(eventlog.FileName)); err == nil {
		t.Error("a release is logged")
	}
	nothing := &post{ns: ns, guarded: request{StateDir: dir.Path(), Note: "guard-1.json"}} // of a parent killed early
	nothing.finish(nil)
	if _, err := os.Stat(dir.Join(eventlog.FileName)); err == nil {
		t.Error("nothing to put back is logged")
	}
	o := startOwner(t, ns, dir)
	o.Kill()
	e := awaitLogged(t, dir)
	if len(e.Done) != 1 || !strings.Contains(e.Done[0], ns.String()) || !strings.Contains(e.Done[0], "kernel.msgmax 8192, raised to 20000") || e.Error != "" {
		t.Errorf("logged %+v", e)
	}
}

// A guard that cannot put something back logs that, with the remedy: its parent is dead.
func TestFailedPutBackLogged(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	const noValue = -5
	p := &post{ns: ns, guarded: request{StateDir: dir.Path(), Note: "guard-1.json", Things: change(noValue, raised)}}
	if err := setMax(ns, nil, raised); err != nil {
		t.Fatal(err)
	}
	if err := dir.Create("guard-1.json", nil); err != nil {
		t.Fatal(err)
	}
	p.finish(p.guarded.PutBack(openSpace(ns, nil)))
	e := awaitLogged(t, dir)
	if len(e.Done) > 0 || !strings.HasPrefix(e.Error, "put back sysctl kernel.msgmax from 20000 to -5: ") || !strings.Contains(e.Error, "set it by hand") {
		t.Errorf("logged %+v", e)
	}
	if names := files(t, dir); len(names) != 1 {
		t.Errorf("files %q, want the note: the next command tries again", names)
	}
}

// A guard that takes its turn after a killed one says what it has put back for it.
func TestPutBackForAKilledOneLogged(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	startOwner(t, ns, dir).killBoth(t)
	g := start(t, ns, dir)
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	if e := awaitLogged(t, dir); len(e.Done) != 1 || !strings.Contains(e.Done[0], "and its guard were killed") {
		t.Errorf("logged %+v", e)
	}
}
