package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// loadWith restores the container where the hook's settings are these.
func (s *runcSubject) loadWith(t testing.TB, settings string) error {
	t.Helper()
	return withSettings(t, settings, "runc", "--root", s.state, "restore", "--detach", "--bundle", s.bundle,
		"--image-path", s.dir, "--work-path", s.dir, s.id)
}

// saveWith checkpoints it so.
func (s *runcSubject) saveWith(t testing.TB, settings string, args ...string) error {
	t.Helper()
	args = append(append([]string{"--root", s.state, "checkpoint"}, args...), "--image-path", s.dir, "--work-path", s.dir, s.id)
	return withSettings(t, settings, append([]string{"runc"}, args...)...)
}

// withSettings runs a program where the hook's settings are these. The machine's
// own stay what they are: /etc is an overlay, in a mount namespace that ends with
// the program.
func withSettings(t testing.TB, settings string, argv ...string) error {
	t.Helper()
	layer, err := os.MkdirTemp(shared(t), "etc-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(layer) })
	for _, dir := range []string{"upper/ipc-cr", "work"} {
		if err := os.MkdirAll(filepath.Join(layer, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(layer, "upper/ipc-cr/config.toml"), settings)
	script := fmt.Sprintf(`mount -t overlay etc -o lowerdir=/etc,upperdir=%s/upper,workdir=%s/work /etc && exec "$@"`, layer, layer)
	return failure(exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh"}, argv...)...))
}

// Set back on purpose, the container finds the queues as they were at its
// checkpoint, whatever it did with them since.
func TestHookRollback(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), talking, nil)
	p.crews[0].works(t)
	everything.make(t, p.ns)
	saved := queues(t, p.ns)
	mustSave(t, p.members[0], "--leave-running")
	p.crews[0].advance(t, p.crews[0].ask(t, "go"), 500)
	p.crews[0].ask(t, "stop")
	inNamespace(t, p.ns, func() error { return removeQueue(keyed(saved, 0x1234).ID) })
	p.members[0].discard(t)
	if p.members[0].load(t) == nil {
		t.Fatal("the restore succeeds without being told to set back")
	}
	p.members[0].discard(t)
	if err := p.members[0].loadWith(t, "in_place = \"rollback\"\n"); err != nil {
		t.Fatalf("restore: %v\n%s", err, p.members[0].logs())
	}
	compareQueues(t, byID(saved), byID(queues(t, p.ns)))
	p.crews[0].works(t)
	accounted(t, p.ns, p.crews)
}
