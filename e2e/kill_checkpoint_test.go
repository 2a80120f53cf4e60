package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A checkpointKill is a namespace that is checkpointed again and again, and
// killed at that.
type checkpointKill struct {
	*killer
	task   *task
	ns     *nsenter.Namespace
	table  string
	limits [3]int
	older  string // directory of a checkpoint that is to be replaced
	want   string // directory of the whole checkpoint
	swept  int    // temporaries that kills left
}

func TestKilledCheckpoint(t *testing.T) {
	c := &checkpointKill{killer: newKiller(t, 200), ns: nstest.Fresh(t)}
	c.task = startTask(t, c.ns, 2)
	manyQueues(t, c.ns, 299)
	c.older = checkpointed(t, c.task.pid, 1)
	makeQueue(t, c.ns, 0, message{5, "newer"})
	c.table, c.limits = table(t, c.ns), limits(t, c.ns)
	c.want = checkpointed(t, c.task.pid, 1)
	c.whole(t, "checkpoint", "--pid", fmt.Sprint(c.task.pid), "--images-dir", imagesDir(t))
	for i := range c.kills {
		c.round(t, i)
	}
	c.sure(t)
	if !testing.Short() && c.swept == 0 {
		t.Error("no kill left a temporary behind: they came at the wrong moments")
	}
}

// round takes turns: an empty directory or one whose checkpoint is replaced, with
// the tasks stopped or not, with a guard that survives or not.
func (c *checkpointKill) round(t *testing.T, i int) {
	t.Helper()
	dir := imagesDir(t)
	defer os.RemoveAll(dir)
	args := []string{"checkpoint", "--pid", fmt.Sprint(c.task.pid), "--images-dir", dir}
	replace, guardToo := i%2 == 1, i%5 == 4
	if replace {
		command(t, "cp", "-a", c.older+"/.", dir)
		args = append(args, "--force")
	}
	if i%4 > 1 {
		args = append(args, "--freeze")
	}
	c.kill(t, c.ns, i, guardToo, args...)
	checkRuns(t, c.task.pid)
	if !guardToo {
		c.undisturbed(t)
	}
	c.checkDir(t, dir, replace)
	c.rerun(t, dir, args)
	c.undisturbed(t)
	withoutNotes(t, c.ns)
	if t.Failed() {
		t.FailNow()
	}
}

// undisturbed wants the namespace as it was, and nobody guarding it.
func (c *checkpointKill) undisturbed(t *testing.T) {
	t.Helper()
	withoutGuard(t)
	if got := limits(t, c.ns); got != c.limits {
		t.Errorf("msgmax, msgmnb, msgmni: %v, before %v", got, c.limits)
	}
	if diff := cmp.Diff(c.table, table(t, c.ns)); diff != "" {
		t.Errorf("the source (-before +after):\n%s", diff)
	}
}

// checkDir wants a whole checkpoint or none. What is told by ipcns-var, without
// which CRIU takes nothing from a directory either.
func (c *checkpointKill) checkDir(t *testing.T, dir string, replace bool) {
	t.Helper()
	c.swept += strings.Count(filesIn(dir), "-tmp")
	if _, err := os.Stat(filepath.Join(dir, "ipcns-var-1.img")); err != nil {
		refused(t, "images directory", "show", dir)
		refused(t, "images directory", "restore", "--dry-run", "--new", "--images-dir", dir)
		return
	}
	run(t, "show", dir)
	if !sameImages(t, c.want, dir) && !(replace && sameImages(t, c.older, dir)) {
		t.Errorf("%s holds a checkpoint that nobody has made: %s", dir, filesIn(dir))
	}
}

func sameImages(t *testing.T, want, got string) bool {
	t.Helper()
	same := true
	for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-1.img"} {
		a, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(filepath.Join(got, name))
		same = same && string(a) == string(b)
	}
	return same
}

// rerun runs the very same command to its end. A directory in which the kill has
// left named files needs --force.
func (c *checkpointKill) rerun(t *testing.T, dir string, args []string) {
	t.Helper()
	if strings.Contains(filesIn(dir)+" ", ".img ") && !slices.Contains(args, "--force") {
		refused(t, "--force", args...)
		args = append(args, "--force")
	}
	c.whole(t, args...)
	if files := filesIn(dir); files != completeFiles {
		t.Errorf("after the rerun %s holds %s", dir, files)
	}
	if !sameImages(t, c.want, dir) {
		t.Error("the rerun's images are other ones")
	}
}
