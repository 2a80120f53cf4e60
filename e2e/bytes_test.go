package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// seedEnv repeats a run of the random tests.
const seedEnv = "IPC_CR_E2E_SEED"

func seed(t testing.TB) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("%s=%d", seedEnv, n)
	return n
}

// Of the same namespace CRIU and ipc-cr write the same files. The namespaces are
// made in batches: none may be in use in the second in which it is copied.
func TestBytesAreCRIUs(t *testing.T) {
	nstest.Require(t, "criu")
	batches, each := 5, 22
	if testing.Short() {
		batches, each = 1, 10
	}
	first := seed(t)
	for batch := range batches {
		t.Run(fmt.Sprint("batch", batch), func(t *testing.T) {
			var all []*sample
			for i := range each {
				all = append(all, newSample(t, first+uint64(batch*each+i)))
			}
			for i, s := range all {
				t.Run(fmt.Sprint("seed", s.seed), func(t *testing.T) {
					dir := s.compare(t, i%4 == 0)
					if i%3 == 0 { // Python takes longer than all the rest
						s.readWithCrit(t, dir)
					}
				})
			}
		})
	}
}

// A sample is a random namespace with a task for CRIU to dump.
type sample struct {
	seed   uint64
	ns     *nsenter.Namespace
	queues []queue
	task   *task
}

func newSample(t *testing.T, seed uint64) *sample {
	t.Helper()
	ns, queues := randomNamespace(t, seed)
	return &sample{seed: seed, ns: ns, queues: queues, task: startSleeper(t, ns)}
}

// compare returns the directory with the images.
func (s *sample) compare(t *testing.T, freeze bool) (ours string) {
	t.Helper()
	before := table(t, s.ns)
	theirs := dump(t, s.task, "--leave-running")
	ours = imagesDir(t)
	n := numberIn(t, theirs)
	args := []string{"checkpoint", "--pid", fmt.Sprint(s.task.pid), "--images-dir", ours, "--ns-id", fmt.Sprint(n)}
	if freeze {
		args = append(args, "--freeze")
	}
	run(t, args...)
	if diff := cmp.Diff(before, table(t, s.ns)); diff != "" {
		t.Errorf("the namespace changed (-before +after):\n%s", diff)
	}
	msg, vars := fmt.Sprintf("ipcns-msg-%d.img", n), fmt.Sprintf("ipcns-var-%d.img", n)
	compareFiles(t, filepath.Join(theirs, msg), filepath.Join(ours, msg), len(s.queues) == 0)
	compareFiles(t, filepath.Join(theirs, vars), filepath.Join(ours, vars), false)
	return ours
}

// readWithCrit compares the image with what was put into the namespace.
func (s *sample) readWithCrit(t *testing.T, dir string) {
	t.Helper()
	var carried []queue
	if len(s.queues) > 0 {
		carried = critQueues(t, filepath.Join(dir, fmt.Sprintf("ipcns-msg-%d.img", numberIn(t, dir))))
	}
	compareQueues(t, byID(s.queues), byID(carried))
}

// numberIn is namespaceNumber for many directories: from the file that CRIU
// always writes, without starting crit.
func numberIn(t testing.TB, dir string) (n int) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "ipcns-var-*.img"))
	if len(files) != 1 {
		t.Fatalf("%s: %q instead of one ipcns-var image", dir, files)
	}
	if _, err := fmt.Sscanf(filepath.Base(files[0]), "ipcns-var-%d.img", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// compareFiles wants the same bytes; where there is nothing to carry, neither file.
func compareFiles(t testing.TB, theirs, ours string, none bool) {
	t.Helper()
	want, wantErr := os.ReadFile(theirs)
	got, gotErr := os.ReadFile(ours)
	if none {
		if !errors.Is(wantErr, fs.ErrNotExist) || !errors.Is(gotErr, fs.ErrNotExist) {
			t.Errorf("%s: %v; %s: %v; want neither", theirs, wantErr, ours, gotErr)
		}
		return
	}
	if err := errors.Join(wantErr, gotErr); err != nil {
		t.Error(err)
		return
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s: %d bytes, %s: %d bytes: they differ at offset %d", theirs, len(want), ours, len(got), firstDifference(want, got))
	}
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
