package plugin_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// wantWarnings wants the caller's warnings and then the report's in the JSON file.
func wantWarnings(t *testing.T, dir string, callers, reported []string) {
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
	if diff := cmp.Diff(slices.Concat(callers, reported), m.Warnings); diff != "" {
		t.Errorf("warnings of the JSON file (-want +got):\n%s", diff)
	}
}

// The images carry the warnings of their checkpoint to where they are restored.
func TestWarningsTravel(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	fill(t, ns, aQueue(3, 0x33, "a"))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	err := ns.Run(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, 1, 0o600); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	callers := []string{"what went before", "the copy"}
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true, Warnings: callers,
	})
	if err != nil {
		t.Fatal(err)
	}
	everybody := "images directory " + dir + " can be written by everybody: whoever writes images decides what a restore makes"
	if diff := cmp.Diff([]string{"semaphore sets are not saved: 1 in the namespace", everybody}, report.Warnings); diff != "" {
		t.Errorf("warnings of the checkpoint's report (-want +got):\n%s", diff)
	}
	wantWarnings(t, dir, callers, report.Warnings)

	within(t, ns, func(k kernel.Kernel) error { return k.Send(3, msgbuf(message{1, "b"})) })
	opt := plugin.CompleteOptions{Kinds: kinds, Namespace: ns, Dir: dir, Lenient: true, Warnings: callers}
	completed, err := plugin.Complete(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(completed.Warnings) != 2 || completed.Warnings[1] != everybody {
		t.Errorf("warnings of the completion's report: %q", completed.Warnings)
	}
	wantWarnings(t, dir, callers, completed.Warnings)
	if report := load(t, nstest.Fresh(t), dir, plugin.Fail); len(report.Warnings) != 1 {
		t.Errorf("warnings of the restore: %q", report.Warnings)
	}
}
