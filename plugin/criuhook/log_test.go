package criuhook_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// began is when these tests did: pids are used again.
var began = time.Now().Truncate(time.Millisecond)

// logged returns what is logged of a CRIU run; others may be under way.
func logged(t *testing.T, criu int) (entries []criuhook.LogEntry) {
	t.Helper()
	log, err := criuhook.ReadLog()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log.Entries {
		if e.CRIU == criu && !e.Time.Before(began) {
			entries = append(entries, e)
		}
	}
	return entries
}

// wantLogged wants one entry of this run's CRIU, but for its times.
func (r *rig) wantLogged(want criuhook.LogEntry) {
	r.t.Helper()
	entries := logged(r.t, r.criu.PID())
	if len(entries) != 1 {
		r.t.Fatalf("%d entries, want one: %+v", len(entries), entries)
	}
	got := entries[0]
	if got.Took <= 0 || got.Time.IsZero() {
		r.t.Errorf("at %v, took %v", got.Time, got.Took)
	}
	want.CRIU, want.Dir, want.Time, want.Took = r.criu.PID(), r.dir, got.Time, got.Took
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("logged (-want +got):\n%s", diff)
	}
}

// An action that has something to say is in the log once, though CRIU asks twice; one
// that has nothing to say is not.
func TestLogged(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 3, 5)
	r.must(criuhook.PreDump)
	if entries := logged(t, r.criu.PID()); len(entries) > 0 {
		t.Errorf("silent, and logged: %+v", entries)
	}
	r.dump(9)
	r.must(criuhook.PostDump)
	r.wantLogged(criuhook.LogEntry{Action: "post-dump", Init: r.container.PID(), Done: []string{"3 queues, 15 messages verified"}})
	r.nextCRIU()
	r.into(nstest.Fresh(t))
	r.must(criuhook.PreRestore)
	r.must(criuhook.PostSetupNamespaces)
	r.wantLogged(criuhook.LogEntry{
		Action: "post-setup-namespaces", Init: r.container.PID(), Done: []string{"3 queues, 15 messages: 3 made"},
	})
}

// The log has the reason of a failure, once as well.
func TestFailureLogged(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 1, 2)
	r.dump(1)
	inside(t, r.ns, func(k kernel.Kernel) error { return k.Remove(0) })
	_, err := r.run(criuhook.PostDump)
	if err == nil || !strings.HasSuffix(err.Error(), "queue 0 (key 0x1): is in the image, and not in the namespace") {
		t.Fatalf("%v, want that a queue is gone", err)
	}
	r.wantLogged(criuhook.LogEntry{Action: "post-dump", Init: r.container.PID(), Error: strings.TrimPrefix(err.Error(), "post-dump: ")})
}

// A container without queues costs no file and no entry.
func TestNothingLogged(t *testing.T) {
	r := newRig(t)
	r.must(criuhook.PreDump)
	r.dump(1)
	r.must(criuhook.PostDump)
	r.must(criuhook.PreRestore)
	r.must(criuhook.PostSetupNamespaces)
	if entries := logged(t, r.criu.PID()); len(entries) > 0 {
		t.Errorf("logged: %+v", entries)
	}
}

// misconfigured CRIU DIR answers pre-dump twice where the settings are wrong.
var misconfigured = nstest.Program("criuhook.misconfigured", func(args []string) {
	criu, _ := strconv.Atoi(args[0])
	process, err := state.Lookup(criu)
	for _, err := range []error{
		err,
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("etc", "/etc", "tmpfs", 0, "mode=0755"),
		os.Mkdir("/etc/ipc-cr", 0o755),
		os.WriteFile("/etc/ipc-cr/config.toml", []byte("nonsense = 1\n"), 0o644),
	} {
		if err != nil {
			panic(err)
		}
	}
	h := &criuhook.Hook{Kinds: kinds, Log: os.Stdout}
	for range 2 {
		fmt.Println(h.Run(context.Background(), criuhook.Event{Action: criuhook.PreDump, ImagesDir: args[1], InitPID: criu, CRIU: process}))
	}
})

// That the settings are wrong fails each dump, and is the first thing to look for: it
// is logged, once.
func TestWrongSettingsLogged(t *testing.T) {
	r := newRig(t)
	p := nstest.StartIn(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, misconfigured, strconv.Itoa(r.criu.PID()), r.dir)
	var answers []string
	for range 2 {
		line, err := p.Stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, line)
	}
	if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "pre-dump: ") || !strings.Contains(answers[0], "nonsense") {
		t.Errorf("answers %q", answers)
	}
	r.wantLogged(criuhook.LogEntry{Action: "pre-dump", Init: r.criu.PID(), Error: strings.TrimSuffix(strings.TrimPrefix(answers[0], "pre-dump: "), "\n")})
}

// Why an event cannot even be answered is logged, if it is one.
func TestLogFailure(t *testing.T) {
	r := newRig(t)
	process, err := state.Lookup(r.criu.PID())
	if err != nil {
		t.Fatal(err)
	}
	criuhook.LogFailure(criuhook.Event{CRIU: process}, errors.New("called by hand"))
	criuhook.LogFailure(criuhook.Event{Action: criuhook.PreDump, CRIU: process, ImagesDir: r.dir}, errors.New("the reason"))
	entries := logged(t, r.criu.PID())
	if len(entries) != 1 || entries[0].Error != "the reason" || entries[0].Action != criuhook.PreDump || entries[0].Dir != r.dir {
		t.Errorf("logged: %+v", entries)
	}
}

// Names that a container or an archive has chosen do nothing to a terminal.
func TestHostileNames(t *testing.T) {
	r := newRig(t)
	r.dir = filepath.Join(r.dir, "\x1b[2J\nipc-cr: post-dump: all is well\u202e")
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, r.ns, 1, 2)
	r.dump(1)
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	said := r.must(criuhook.PostDump)
	const escaped = `\x1b[2J; ipc-cr: post-dump: all is well\u202e can be written by everybody`
	if strings.Count(said, "\n") != 2 || strings.ContainsAny(said, "\x1b\u202e") || !strings.Contains(said, escaped) {
		t.Errorf("post-dump says %q", said)
	}
	entries := logged(t, r.criu.PID())
	if len(entries) != 1 || len(entries[0].Warnings) != 1 || !strings.Contains(entries[0].Warnings[0], escaped) {
		t.Errorf("logged: %+v", entries)
	}
}

// The warnings of pre-dump, when there are no images yet, are in their JSON file in the
// end, with those of post-dump.
func TestWarningsOfPreDump(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 1, 2)
	r.must(criuhook.PreDump)
	r.forge(criuhook.PreDump, `"since_ns"`, `"warnings":["of pre-dump"],"since_ns"`)
	r.dump(1)
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	r.must(criuhook.PostDump)
	f, err := os.Open(filepath.Join(r.dir, images.ManifestName(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := images.ReadManifest(f.Name(), f)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Warnings) != 2 || m.Warnings[0] != "of pre-dump" || !strings.Contains(m.Warnings[1], "can be written by everybody") {
		t.Errorf("warnings %q", m.Warnings)
	}
	entries := logged(t, r.criu.PID())
	if len(entries) != 1 || !slices.Equal(entries[0].Warnings, m.Warnings[1:]) {
		t.Errorf("logged: %+v", entries)
	}
}
