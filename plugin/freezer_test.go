package plugin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// freezer makes a cgroup in the v1 freezer and returns its directory.
func freezer(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(nstest.Freezer(t), "ipc-cr-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		writeFile(t, filepath.Join(dir, "freezer.state"), "THAWED")
		eventually(t, "the cgroup can be removed", func() bool { return os.Remove(dir) == nil })
	})
	return dir
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Tasks that their cgroup has frozen count as stopped, and may be thawed by
// somebody else.
func TestFrozenByCgroup(t *testing.T) {
	cgroup, ns, dir := freezer(t), nstest.Fresh(t), t.TempDir()
	p := startTokens(t, ns, 1, tokenProgram, "0s")
	state := filepath.Join(cgroup, "freezer.state")
	writeFile(t, filepath.Join(cgroup, "cgroup.procs"), strconv.Itoa(p.PID()))
	writeFile(t, state, "FROZEN")
	eventually(t, "the cgroup is frozen", func() bool {
		text, err := os.ReadFile(state)
		return err == nil && string(text) == "FROZEN\n"
	})
	report, err := tryFrozen(t, ns, dir)
	if err != nil {
		t.Fatal(err)
	}
	if loose := fmt.Sprint(report.Frozen.Loose); !strings.Contains(loose, "cgroup") || report.Frozen.Tasks != 0 {
		t.Errorf("frozen %+v, want tasks that are loose because of their cgroup", report.Frozen)
	}
	if n := tokensOf(t, dir)[1]; n > 1 {
		t.Errorf("%d tokens", n)
	}
	writeFile(t, state, "THAWED")
	waitMoved(t, ns)
	wantNobodyStopped(t, ns)
}
