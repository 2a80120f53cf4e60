package criuhook_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// A container ran if CRIU came to post-resume, however soon it ended after that. Then
// a second restore of its checkpoint is refused where its queues were used.
func TestCameToRun(t *testing.T) {
	for _, ran := range []bool{true, false} {
		t.Run(fmt.Sprint(ran), func(t *testing.T) {
			r := newRig(t)
			fill(t, r.ns, 2, 2)
			r.must(criuhook.PreDump)
			r.dump(1)
			r.must(criuhook.PostDump)

			ns := nstest.Fresh(t)
			r.restored(t, ns)
			inside(t, ns, func(k kernel.Kernel) error { return k.Send(0, message(0)) })
			if ran {
				r.container.Kill()
				r.must(criuhook.PostResume)
			}
			if r.owes(t) == ran {
				t.Errorf("a note is owed: %t", !ran)
			}
			r.criu.Kill()

			r.nextCRIU()
			r.into(ns)
			r.must(criuhook.PreRestore)
			_, err := r.run(criuhook.PostSetupNamespaces)
			if ran != (err != nil && strings.Contains(err.Error(), "queue 0 (key 0x1): was used since")) {
				t.Errorf("ran %t: %v", ran, err)
			}
		})
	}
}

// A note that cannot be written when the container runs is written by the next action
// that can.
func TestCameToRunNotedLater(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 2, 2)
	r.must(criuhook.PreDump)
	r.dump(1)
	r.must(criuhook.PostDump)

	ns := nstest.Fresh(t)
	r.restored(t, ns)
	inside(t, ns, func(k kernel.Kernel) error { return k.Send(0, message(0)) })
	path := r.recordOf(t, ns)
	was, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte("damaged"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.run(criuhook.PostResume); err == nil || !strings.Contains(err.Error(), "not noted yet") {
		t.Errorf("post-resume with a damaged record: %v", err)
	}
	if err := os.WriteFile(path, was, 0o600); err != nil {
		t.Fatal(err)
	}
	r.criu.Kill()
	r.nextCRIU()
	r.into(ns)
	r.must(criuhook.PreRestore)
	_, err = r.run(criuhook.PostSetupNamespaces)
	if err == nil || !strings.Contains(err.Error(), "queue 0 (key 0x1): was used since") {
		t.Errorf("the second restore: %v", err)
	}
}

// recordOf returns the path of a namespace's record.
func (r *rig) recordOf(t *testing.T, ns *nsenter.Namespace) string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/run/ipc-cr/record-*-%d.json", ns.Inode()))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no record of %s: %v", ns, err)
	}
	newest := paths[0]
	for _, path := range paths { // of namespaces that had the number before, too
		a, _ := os.Stat(path)
		b, _ := os.Stat(newest)
		if a != nil && b != nil && a.ModTime().After(b.ModTime()) {
			newest = path
		}
	}
	return newest
}

// restored restores the images into a namespace, until tasks would run.
func (r *rig) restored(t *testing.T, ns *nsenter.Namespace) {
	t.Helper()
	r.nextCRIU()
	r.into(ns)
	r.must(criuhook.PreRestore)
	if said := r.must(criuhook.PostSetupNamespaces); !strings.Contains(said, "2 queues, 4 messages: 2 made") {
		t.Errorf("post-setup-namespaces says %q", said)
	}
}

// owes reports whether there is something to be noted at post-resume.
func (r *rig) owes(t *testing.T) bool {
	t.Helper()
	dir, err := state.Default()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	criu, err := state.Lookup(r.criu.PID())
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Lstat(dir.Join(fmt.Sprintf("hook-%d-%d-%d-owed", criu.PIDNamespace, criu.PID, criu.Start)))
	return err == nil
}
