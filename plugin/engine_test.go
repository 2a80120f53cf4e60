package plugin_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// save checkpoints a namespace that nobody uses.
func save(t testing.TB, ns *nsenter.Namespace, dir string) *plugin.CheckpointReport {
	t.Helper()
	report, err := trySave(t, ns, dir)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func trySave(t testing.TB, ns *nsenter.Namespace, dir string) (*plugin.CheckpointReport, error) {
	return plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1})
}

func tryFrozen(t testing.TB, ns *nsenter.Namespace, dir string) (*plugin.CheckpointReport, error) {
	return plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true, Force: true,
	})
}

// load restores into a namespace that others may reach.
func load(t testing.TB, ns *nsenter.Namespace, dir string, policy plugin.Policy) *plugin.RestoreReport {
	t.Helper()
	report, err := tryLoad(t, ns, dir, policy)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func tryLoad(t testing.TB, ns *nsenter.Namespace, dir string, policy plugin.Policy) (*plugin.RestoreReport, error) {
	return foretold(t, plugin.RestoreOptions{
		Kinds: kinds, Namespace: ns, Dir: dir, Number: images.Auto, OnConflict: policy, Existing: plugin.ExistingAdopt,
	})
}

// foretold restores. What is refused, and so has changed nothing, a dry run must
// refuse alike.
func foretold(t testing.TB, opt plugin.RestoreOptions) (*plugin.RestoreReport, error) {
	t.Helper()
	report, err := plugin.Restore(t.Context(), opt)
	if err == nil {
		return report, nil
	}
	opt.DryRun = true
	dry, said := plugin.Restore(t.Context(), opt)
	conflict, conflicts := errors.AsType[*plugin.ConflictError](err)
	switch {
	case !conflicts && fmt.Sprint(said) != err.Error():
		t.Errorf("the dry run says %v, the restore %v", said, err)
	case conflicts && (said != nil || dry.Actions[plugin.ActionConflict] != len(conflict.Steps)):
		t.Errorf("the dry run says %+v, %v, the restore %v", dry, said, err)
	}
	return nil, err
}

// wantFailure wants an error that says all of the words.
func wantFailure(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
	if strings.Contains(err.Error(), "failed to") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is not one line, or says failed to", err)
	}
}

// wantNoCheckpoint wants a directory that nobody takes for a checkpoint, and
// with nothing left in it.
func wantNoCheckpoint(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, entry := range entries {
		t.Errorf("%s is left", entry.Name())
	}
}

// saved is the images directory of a fresh namespace with these queues.
func saved(t testing.TB, queues ...queue) string {
	t.Helper()
	ns, dir := nstest.Fresh(t), t.TempDir()
	fill(t, ns, queues...)
	// Without tasks there is nobody to stop, and no second to wait for.
	if _, err := tryFrozen(t, ns, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withoutManifest removes the JSON file.
func withoutManifest(t testing.TB, dir string) {
	t.Helper()
	if err := os.Remove(dir + "/" + images.ManifestName(1)); err != nil {
		t.Fatal(err)
	}
}
