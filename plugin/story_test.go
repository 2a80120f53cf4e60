package plugin_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// story is a source, whose checkpoints are restored into a target, with a state
// directory of its own.
type story struct {
	t              *testing.T
	source, target *nsenter.Namespace
	state          string
}

func newStory(t *testing.T, queues ...queue) *story {
	t.Helper()
	s := &story{t: t, source: nstest.Fresh(t), target: nstest.Fresh(t), state: filepath.Join(t.TempDir(), "state")}
	fill(t, s.source, queues...)
	return s
}

// checkpoint returns the images directory of the source as it is.
func (s *story) checkpoint() string {
	s.t.Helper()
	dir := s.t.TempDir()
	if _, err := tryFrozen(s.t, s.source, dir); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

func (s *story) options(dir string) plugin.RestoreOptions {
	return plugin.RestoreOptions{
		Kinds: kinds, Namespace: s.target, Dir: dir, Number: images.Auto, OnConflict: plugin.Adopt, Record: plugin.RecordRequired,
	}.WithState(s.state, nil)
}

func (s *story) try(dir string, change ...func(*plugin.RestoreOptions)) (*plugin.RestoreReport, error) {
	opt := s.options(dir)
	for _, fn := range change {
		fn(&opt)
	}
	return plugin.Restore(s.t.Context(), opt)
}

// restore restores and compares what was done.
func (s *story) restore(dir string, want map[plugin.Action]int, change ...func(*plugin.RestoreOptions)) *plugin.RestoreReport {
	s.t.Helper()
	report, err := s.try(dir, change...)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(want, report.Actions); diff != "" {
		s.t.Errorf("actions (-want +got):\n%s\n%+v", diff, report.Steps)
	}
	return report
}

// refused wants that nothing is changed, with an error that says the words.
func (s *story) refused(dir string, words ...string) {
	s.t.Helper()
	was := stateOf(s.t, s.target)
	_, err := foretold(s.t, s.options(dir))
	wantFailure(s.t, err, words...)
	wantSame(s.t, s.target, was)
}

// conflicts is refused for conflicts about which that choice decides.
func (s *story) conflicts(remedy plugin.Remedy, dir string, words ...string) {
	s.t.Helper()
	was := stateOf(s.t, s.target)
	_, err := foretold(s.t, s.options(dir))
	wantFailure(s.t, err, words...)
	if c, is := errors.AsType[*plugin.ConflictError](err); !is || c.Remedy != remedy {
		s.t.Errorf("%v: %+v, want the remedy %q", err, c, remedy)
	}
	wantSame(s.t, s.target, was)
}

func existingAdopt(o *plugin.RestoreOptions) { o.Existing = plugin.ExistingAdopt }

func laterKeep(o *plugin.RestoreOptions) { o.Later = plugin.LaterKeep }

func policy(p plugin.Policy) func(*plugin.RestoreOptions) {
	return func(o *plugin.RestoreOptions) { o.OnConflict = p }
}

func inPlace(p plugin.InPlace) func(*plugin.RestoreOptions) {
	return func(o *plugin.RestoreOptions) { o.InPlace = p }
}

// takeOne receives the first message of a queue.
func takeOne(id int32) func(kernel.Kernel) error {
	return func(kernel.Kernel) error { receive(int(id), make([]byte, 64)); return nil }
}

func sendOne(id int32, text string) func(kernel.Kernel) error {
	return func(k kernel.Kernel) error { return k.Send(id, msgbuf(message{9, text})) }
}

func anew(q queue) func(kernel.Kernel) error {
	return func(k kernel.Kernel) error {
		if err := k.Remove(q.ID % slots); err != nil {
			return err
		}
		return makeQueue(k, q)
	}
}

func chmod(q queue, mode uint32) func(kernel.Kernel) error {
	return func(k kernel.Kernel) error {
		return k.Set(q.ID, kernel.Attr{UID: q.UID, GID: q.GID, Mode: mode, QBytes: q.QBytes})
	}
}

// recordFiles returns the paths of the records.
func (s *story) recordFiles() []string {
	files, err := filepath.Glob(filepath.Join(s.state, "record-*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

// created is when a checkpoint was taken, as errors say it.
func created(t *testing.T, dir string) string {
	t.Helper()
	return manifestOf(t, dir).Created.Format("2006-01-02T15:04:05Z07:00")
}

func manifestOf(t *testing.T, dir string) *images.Manifest {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, images.ManifestName(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := images.ReadManifest(f.Name(), f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type actions = map[plugin.Action]int
