package criuhook

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// That something cannot be logged is said to CRIU, and does no more harm.
func TestCannotLog(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := os.Mkdir(dir.Join(eventlog.FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	r := &run{Hook: &Hook{Log: &said}, Event: Event{Action: PreDump}, state: dir, began: time.Now()}
	r.log(nil)
	if said.Len() > 0 {
		t.Errorf("with nothing to log it says %q", said.String())
	}
	r.log(errors.New("the reason"))
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "ipc-cr: pre-dump: log: ") || !strings.Contains(got, dir.Path()) {
		t.Errorf("says %q", got)
	}
}
