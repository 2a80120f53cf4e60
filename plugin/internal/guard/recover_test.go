package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestRecoverAfterBothWereKilled(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	startOwner(t, ns, dir).killBoth(t)
	if got := getMax(t, ns, nil); got != raised {
		t.Fatalf("msgmax is %d, nothing is left to recover", got)
	}
	r := recoverNow(dir)
	if len(r.Warnings) != 0 || len(r.Done) != 1 || !strings.Contains(r.Done[0], "kernel.msgmax 8192, raised to 20000") {
		t.Errorf("recovery %+v, want one thing done", r)
	}
	if got := getMax(t, ns, nil); got != oldMax {
		t.Errorf("msgmax is %d, want %d", got, oldMax)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("%v left", left)
	}
}

func TestRecoverByManyAtOnce(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	startOwner(t, ns, dir).killBoth(t)
	var group sync.WaitGroup
	var mu sync.Mutex
	var done []string
	for range 8 {
		group.Go(func() {
			r := recoverNow(dir)
			mu.Lock()
			defer mu.Unlock()
			done = append(done, r.Done...)
			if len(r.Warnings) != 0 {
				t.Errorf("warnings %v", r.Warnings)
			}
			if got := getMax(t, ns, nil); got != oldMax {
				t.Errorf("msgmax is %d after Recover, want %d", got, oldMax)
			}
		})
	}
	group.Wait()
	if len(done) != 1 {
		t.Errorf("done %v, want it once", done)
	}
}

func TestRecoverLeavesOthersChangesAlone(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	startOwner(t, ns, dir).killBoth(t)
	if err := setMax(ns, nil, 12345); err != nil {
		t.Fatal(err)
	}
	if r := recoverNow(dir); len(r.Warnings) != 0 {
		t.Errorf("recovery %+v", r)
	}
	if got := getMax(t, ns, nil); got != 12345 {
		t.Errorf("msgmax is %d, somebody else's 12345 before", got)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("%v left", left)
	}
}

func TestRecoverLeavesTheLivingAlone(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	o := startOwner(t, ns, dir)
	if r := recoverNow(dir); len(r.Done)+len(r.Warnings) != 0 || len(files(t, dir)) != 1 || getMax(t, ns, nil) != raised {
		t.Errorf("recovery %+v, files %v, msgmax %d: want nothing done", r, files(t, dir), getMax(t, ns, nil))
	}
	o.Kill()
}

// Recover right after a kill waits for the guard, so that the command does not
// see limits that are about to change.
func TestRecoverWaitsForTheGuard(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	startOwner(t, ns, dir).Kill()
	if r := recoverNow(dir); len(r.Warnings) != 0 {
		t.Errorf("recovery %+v", r)
	}
	if got := getMax(t, ns, nil); got != oldMax {
		t.Errorf("msgmax is %d, want %d", got, oldMax)
	}
}

func TestRecoverSaysThatAGuardIsStopped(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	o := startOwner(t, ns, dir)
	if err := unix.Kill(o.guard, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	o.Kill()
	want := fmt.Sprintf("is stopped: kill -CONT %d", o.guard)
	if r := recoverWithout(t, dir); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], want) || !strings.Contains(r.Warnings[0], files(t, dir)[0]) {
		t.Errorf("recovery %+v, want %q", r, want)
	}
	if err := unix.Kill(o.guard, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "the guard has done its work", empty(t, dir))
}

// recoverWithout recovers and must not wait for a guard that cannot go on: it would for
// an hour.
func recoverWithout(t *testing.T, dir *state.Dir) state.Recovery {
	t.Helper()
	names, err := dir.Names()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), deadline, errors.New("it waits"))
	defer cancel()
	return Recover(ctx, dir, names, time.Hour)
}

func TestRecoverOfAGoneNamespace(t *testing.T) {
	nstest.Require(t, "root") // nobody else is told that it is gone
	tests := map[string]func(ns *nsenter.Namespace, dir *state.Dir){
		"both killed": func(ns *nsenter.Namespace, dir *state.Dir) { startOwner(t, ns, dir).killBoth(t) },
		"other pid namespace": func(ns *nsenter.Namespace, dir *state.Dir) {
			leave(t, ns, dir, func(n *note) { n.Owner.PIDNamespace++ })
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			ns, dir := nstest.Fresh(t), tempState(t)
			prepare(ns, dir)
			end(t, ns)
			if r := recoverNow(dir); len(r.Done)+len(r.Warnings) != 0 || len(files(t, dir)) != 0 {
				t.Errorf("recovery %+v, files %v: want the note removed without a word", r, files(t, dir))
			}
		})
	}
}

// end closes a namespace and waits until it is gone: a thread that was in it may
// outlive the call that it made by a moment.
func end(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	identity, err := ns.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the namespace is gone", func() bool {
		again, err := nsenter.OpenIdentity(identity)
		if err == nil {
			again.Close()
		}
		return errors.Is(err, nsenter.ErrGone)
	})
}

// leave leaves the note of a dead owner, changed by edit.
func leave(t *testing.T, ns *nsenter.Namespace, dir *state.Dir, edit func(n *note)) string {
	t.Helper()
	n, err := newNote(ns, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.Owner.Start--
	n.Things = change(oldMax, raised)
	edit(&n)
	content, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Create(n.fileName(), content); err != nil {
		t.Fatal(err)
	}
	return dir.Join(n.fileName())
}

func TestRecoverOfOtherTimesAndPlaces(t *testing.T) {
	tests := []struct {
		name       string
		edit       func(n *note)
		max        int64
		kept, said bool
	}{
		{"dead owner", func(*note) {}, oldMax, false, false},
		{"other boot", func(n *note) { n.Namespace.BootID = "another" }, raised, false, false},
		{"other pid namespace", func(n *note) { n.Owner.PIDNamespace++ }, raised, true, true},
		{"other pid namespace, without a change", func(n *note) { n.Owner.PIDNamespace++; n.Things = Things{} }, raised, true, true},
		{"nothing changed yet", func(n *note) { n.Things = Things{} }, raised, false, false},
		{"cannot be found", func(n *note) { n.Namespace.ID, n.Namespace.Inode = 0, 1 }, raised, true, true},
		{"sysctl that is not there", func(n *note) { n.Sysctls[0].Name = "kernel.msg_nothing" }, raised, true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ns, dir := nstest.Fresh(t), tempState(t)
			if err := setMax(ns, nil, raised); err != nil {
				t.Fatal(err)
			}
			path := leave(t, ns, dir, test.edit)
			r := recoverNow(dir)
			if _, err := os.Lstat(path); (err == nil) != test.kept {
				t.Errorf("note kept: %v, want %v", err == nil, test.kept)
			}
			if said := len(r.Warnings) == 1 && strings.Contains(r.Warnings[0], path); said != test.said {
				t.Errorf("recovery %+v, want a warning that names %s: %v", r, path, test.said)
			}
			if got := getMax(t, ns, nil); got != test.max {
				t.Errorf("msgmax is %d, want %d", got, test.max)
			}
		})
	}
}

func TestRecoverOfHostileNotes(t *testing.T) {
	ns := nstest.Fresh(t)
	good := func(edit func(n *note)) string {
		dir := tempState(t)
		path := leave(t, ns, dir, edit)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	whole := good(func(*note) {})
	notes := map[string]string{
		"empty":            "",
		"truncated":        whole[:len(whole)/2],
		"two":              whole + whole,
		"binary":           "\x00\xff\xfe\x80",
		"null":             "null",
		"list":             "[]",
		"deep":             strings.Repeat(`{"a":`, 10000),
		"huge":             strings.Repeat(" ", state.MaxFile) + whole,
		"unknown field":    `{"x":1,` + whole[1:],
		"newer format":     good(func(n *note) { n.Format++ }),
		"no owner":         good(func(n *note) { n.Owner = state.Process{} }),
		"negative owner":   good(func(n *note) { n.Owner.PID = -1 }),
		"no namespace":     good(func(n *note) { n.Namespace = nsenter.Identity{} }),
		"path":             good(func(n *note) { n.Sysctls[0].Name = "kernel.msg/../../vm/drop_caches" }),
		"dots":             good(func(n *note) { n.Sysctls[0].Name = "kernel.msg....vm.drop_caches" }),
		"host sysctl":      good(func(n *note) { n.Sysctls[0].Name = "kernel.core_pattern" }),
		"too many":         good(func(n *note) { n.Sysctls = slices.Repeat(n.Sysctls, maxThings+1) }),
		"number too large": strings.Replace(whole, "20000", "99999999999999999999", 1),
	}
	for name, content := range notes {
		t.Run(name, func(t *testing.T) {
			dir := tempState(t)
			path := dir.Join(notePrefix + "1" + noteSuffix)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			r := recoverNow(dir)
			if len(r.Done) != 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], path) {
				t.Errorf("recovery %+v, want a warning that names %s", r, path)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the note was removed: %v", err)
			}
		})
	}
}

func TestRecoverOfOtherFiles(t *testing.T) {
	dir := tempState(t)
	for name, plant := range map[string]func(path string) error{
		"guard-1.json": func(path string) error { return os.Symlink("/etc/hostname", path) },
		"guard-2.json": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"guard-3.json": func(path string) error { return os.Mkdir(path, 0o700) },
		"record.json":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		if err := plant(dir.Join(name)); err != nil {
			t.Fatal(err)
		}
	}
	r := recoverNow(dir)
	slices.Sort(r.Warnings)
	if len(r.Warnings) != 3 || len(r.Done) != 0 {
		t.Fatalf("recovery %+v, want three warnings", r)
	}
	for i, name := range []string{"guard-1.json", "guard-2.json", "guard-3.json"} {
		if !strings.Contains(r.Warnings[i], dir.Join(name)) {
			t.Errorf("warning %q does not name %s", r.Warnings[i], name)
		}
	}
}

func FuzzParseNote(f *testing.F) {
	f.Add([]byte(`{"format":1,"namespace":{"boot_id":"b","ns_id":7,"inode":1},"owner":{"pid":1},"guard":{},"sysctls":[{"sysctl":"kernel.msgmax","was":1,"raised_to":2}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		n, err := parseNote(content)
		if err != nil {
			return
		}
		for _, change := range n.Sysctls {
			if !ipcSysctl(change.Name) || strings.Count(change.Name, ".") > 2 || strings.Contains(change.Name, "/") {
				t.Errorf("%q passed", change.Name)
			}
		}
	})
}
