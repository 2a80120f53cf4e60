package infront

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Between Prepare and the images nobody restores the directory, least of all into
// the namespace of the criu that restores.
func TestPreparedAloneIsNoCheckpoint(t *testing.T) {
	nstest.Require(t, "criu")
	ns := nstest.Fresh(t)
	fill(t, ns, 3)
	task := startSleeper(t, ns)
	dir, _ := dumped(t, newLink(t), task.Process.Pid)
	_ = task.Wait()
	for range 2 {
		if n, err := Prepare(dir); err != nil || n == 0 {
			t.Fatalf("%d, %v", n, err)
		}
	}
	log := filepath.Join(dir, "restore.log")
	out, err := combined(exec.Command("criu", "restore", "-D", dir, "-o", "restore.log", "-v4", "--restore-detached"))
	if err == nil {
		t.Errorf("it was restored: %s\n%s", out, wrong(log))
	}
	t.Log(wrong(log))
}
