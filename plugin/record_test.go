package plugin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	kept "github.com/ipc-cr/ipc-cr/plugin/internal/record"
	statedir "github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func writeManifest(t *testing.T, dir string, m *images.Manifest) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, images.ManifestName(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := images.WriteManifest(f, m, map[string]images.Details{"msgq": {[]byte("[]")}}); err != nil {
		t.Fatal(err)
	}
}

// Where no record can be kept, the caller says what then. What is wrong with the
// state directory is a warning of its own.
func TestWithoutState(t *testing.T) {
	readOnly := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(readOnly, 0o750); err != nil { // open to others: refused
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		where func(plugin.RestoreOptions) plugin.RestoreOptions
		use   plugin.RecordUse
		fails bool
		warns int
	}{
		{"nowhere, optional", nowhere, plugin.RecordOptional, false, 0},
		{"nowhere, wanted", nowhere, plugin.RecordWanted, false, 1},
		{"nowhere, required", nowhere, plugin.RecordRequired, true, 0},
		{"refused, optional", at(readOnly), plugin.RecordOptional, false, 2},
		{"refused, wanted", at(readOnly), plugin.RecordWanted, false, 2},
		{"refused, required", at(readOnly), plugin.RecordRequired, true, 0},
		{"full, optional", at("/proc/self/fdinfo"), plugin.RecordOptional, false, 2},
		{"full, required", at("/proc/self/fdinfo"), plugin.RecordRequired, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, steady)
			dir := s.checkpoint()
			opt := s.options(dir)
			opt.Record = c.use
			was := stateOf(t, s.target)
			report, err := plugin.Restore(t.Context(), c.where(opt))
			if c.fails {
				wantFailure(t, err, "restore "+dir, "before is not to be known")
				wantSame(t, s.target, was)
				return
			}
			if err != nil || len(report.Warnings) != c.warns {
				t.Fatalf("%+v, %v, want %d warnings", report, err, c.warns)
			}
			wantQueues(t, s.target, steady)
		})
	}
}

func nowhere(o plugin.RestoreOptions) plugin.RestoreOptions {
	return o.WithState("", statedir.ErrNowhere)
}

func at(path string) func(plugin.RestoreOptions) plugin.RestoreOptions {
	return func(o plugin.RestoreOptions) plugin.RestoreOptions { return o.WithState(path, nil) }
}

// A record that is damaged, or not root's, decides nothing: Adopt fails, and a
// person's word begins a new one.
func TestDamagedRecord(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"truncated": func(path string) error { return os.Truncate(path, 100) },
		"changed": func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(text), `"msgq"`, `"MSGQ" `, 1)), 0o600))
		},
		"newer": func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(text), `"format":1`, `"format":2`, 1)), 0o600))
		},
		"a link": func(path string) error { return errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path)) },
		"a directory": func(path string) error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, steady, changes)
			dir := s.checkpoint()
			s.restore(dir, actions{plugin.ActionMake: 2})
			if err := damage(s.recordFiles()[0]); err != nil {
				t.Fatal(err)
			}
			do(t, s, removeIfThere(steady.ID))
			s.refused(dir, "not a record of this ipc-cr", "record-", "look at it, then remove it")
			if name == "a directory" {
				return // nothing can take its place
			}
			report := s.restore(dir, actions{plugin.ActionMake: 1, plugin.ActionKeep: 1}, policy(plugin.Fail))
			if len(report.Warnings) != 1 {
				t.Errorf("warnings %q", report.Warnings)
			}
			s.restore(dir, actions{plugin.ActionLeave: 2})
		})
	}
}

// A record that another user planted is not read.
func TestPlantedRecord(t *testing.T) {
	nstest.Require(t, "root")
	s := newStory(t, steady)
	dir := s.checkpoint()
	s.restore(dir, actions{plugin.ActionMake: 1})
	if err := os.Chown(s.recordFiles()[0], 1000, 1000); err != nil {
		t.Fatal(err)
	}
	s.refused(dir, "belongs to uid 1000")
}

// Records of namespaces that are gone, and of earlier boots, are removed.
func TestDeadRecords(t *testing.T) {
	nstest.Require(t, "root") // others cannot prove that a namespace is gone
	s := newStory(t, steady)
	dir := s.checkpoint()
	s.restore(dir, actions{plugin.ActionMake: 1})
	dead := s.recordFiles()[0]
	text, err := os.ReadFile(dead)
	if err != nil {
		t.Fatal(err)
	}
	earlier := filepath.Join(s.state, "record-00000000-77-4026532999.json")
	if err := os.WriteFile(earlier, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.target.Close(); err != nil {
		t.Fatal(err)
	}
	s.target = nstest.Fresh(t)
	was := s.target
	eventually(t, "the dead namespace's record is removed", func() bool { // it is torn down by and by
		s.target = nstest.Fresh(t)
		if _, err := s.try(dir); err != nil {
			t.Fatal(err)
		}
		_, deadErr := os.Stat(dead)
		_, earlierErr := os.Stat(earlier)
		_, lockErr := os.Stat(strings.TrimSuffix(dead, "json") + "lock")
		return os.IsNotExist(deadErr) && os.IsNotExist(earlierErr) && os.IsNotExist(lockErr)
	})
	s.target = was
	s.restore(dir, actions{plugin.ActionMake: 1})
	if len(s.recordFiles()) < 2 {
		t.Errorf("records of the living are missing: %q", s.recordFiles())
	}
}

// claim claims the record of the target for a moment, if nobody has it.
func (s *story) claim() error {
	dir, err := statedir.Open(s.state)
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := s.target.Identity()
	if err != nil {
		return err
	}
	once, cancel := context.WithCancel(s.t.Context())
	cancel() // it is tried once all the same
	file, err := kept.Open(once, dir, id)
	if err == nil {
		file.Close()
	}
	return err
}

// A restore that is given up while it waits for the record does not go on without it,
// whatever words it is given up with.
func TestRecordWaitIsGivenUp(t *testing.T) {
	s := newStory(t, steady)
	dir := s.checkpoint()
	s.restore(dir, actions{plugin.ActionMake: 1})
	state, err := statedir.Open(s.state)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	id, err := s.target.Identity()
	if err != nil {
		t.Fatal(err)
	}
	file, err := kept.Open(t.Context(), state, id)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Millisecond, enough)
	defer cancel()
	opt := s.options(dir)
	opt.Record = plugin.RecordWanted
	_, err = plugin.Restore(ctx, opt)
	if !errors.Is(err, enough) {
		t.Errorf("error %v, want its cause", err)
	}
	wantFailure(t, err, "was restored into "+s.target.String()+" before is not to be known: ", "lock the record of restores into the namespace: ", "wait for process ", ", which has it: enough")
}

// From the moment at which a restore reads the record until it has written what it
// did, nobody else restores by it: what he has read would be stale.
func TestRecordIsClaimed(t *testing.T) {
	s := newStory(t, steady)
	dir, asked := s.checkpoint(), 0
	ask := func(kernel.Kernel) error {
		asked++
		if err := s.claim(); !errors.Is(err, context.Canceled) {
			t.Errorf("step %d: claimed with %v, want to have to wait", asked, err)
		}
		return nil
	}
	m := &meddler{beginning: ask, making: ask, checking: ask, sealing: ask}
	s.restore(dir, actions{plugin.ActionMake: 1}, func(o *plugin.RestoreOptions) { o.Kinds = m.kinds() })
	if asked != 4 {
		t.Errorf("asked %d times, want 4", asked)
	}
	if err := s.claim(); err != nil {
		t.Error(err)
	}
}

// Of two restores at once the second waits, and then goes by what the first did.
func TestRestoresTakeTurns(t *testing.T) {
	s := newStory(t, steady)
	dir, begun, goOn := s.checkpoint(), make(chan bool), make(chan bool)
	m := &meddler{making: func(kernel.Kernel) error { close(begun); <-goOn; return nil }}
	var group sync.WaitGroup
	let := sync.OnceFunc(func() { close(goOn); group.Wait() })
	defer let()
	group.Go(func() {
		if _, err := s.try(dir, func(o *plugin.RestoreOptions) { o.Kinds = m.kinds() }); err != nil {
			t.Error(err)
		}
	})
	<-begun
	group.Go(func() {
		report, err := s.try(dir)
		if err != nil || report.Actions[plugin.ActionLeave] != 1 {
			t.Errorf("the second: %+v, %v, want the queue left alone", report, err)
		}
	})
	eventually(t, "the second waits for the record", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "plugin/internal/record.open(")
	})
	let()
}

// What the JSON file claims cannot spoil the record.
func TestHostileClaims(t *testing.T) {
	for name, change := range map[string]func(*images.Manifest){
		"a long boot id": func(m *images.Manifest) { m.Namespace.BootID = strings.Repeat("x", 1<<20) },
		"no boot id":     func(m *images.Manifest) { m.Namespace.BootID = "" },
		"a strange one":  func(m *images.Manifest) { m.Namespace.BootID = "../\"\n\x00<é" },
		"no time":        func(m *images.Manifest) { m.Boottime = 0 },
		"before boot":    func(m *images.Manifest) { m.Boottime = -5 },
		"the year 10000": func(m *images.Manifest) { m.Created = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -36000)) },
		"many tasks": func(m *images.Manifest) {
			m.Namespace.ID = 0
			for pid := range 3000 {
				m.Namespace.Tasks = append(m.Namespace.Tasks, images.SourceTask{PID: pid + 1, Start: 5})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, steady)
			dir := s.checkpoint()
			m := manifestOf(t, dir)
			change(m)
			writeManifest(t, dir, m)
			if _, err := s.try(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.try(s.checkpoint()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A checkpoint of this boot that is not taken yet would make all others of its source
// older ones, of which nothing is made.
func TestCheckpointOfTheFuture(t *testing.T) {
	s := newStory(t, steady)
	dir := s.checkpoint()
	path := filepath.Join(dir, images.ManifestName(1))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	future := regexp.MustCompile(`"boottime_ns": \d+`).ReplaceAll(text, []byte(`"boottime_ns": 9000000000000000000`))
	writeFile(t, path, string(future))
	s.refused(dir, "ipc-cr-1.json: boottime_ns 9000000000000000000 is in the future")
	writeFile(t, path, string(text))
	s.restore(dir, actions{plugin.ActionMake: 1})
}
