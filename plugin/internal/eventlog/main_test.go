package eventlog

import (
	"path/filepath"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func openTemp(t *testing.T) *state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func read(t *testing.T, dir *state.Dir) (entries []Entry, unreadable int) {
	t.Helper()
	entries, unreadable, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries, unreadable
}
