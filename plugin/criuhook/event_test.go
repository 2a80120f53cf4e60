package criuhook_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestFromEnv(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), dir.Fd())
	e, err := criuhook.FromEnv(env("CRTOOLS_SCRIPT_ACTION", "post-dump", "CRTOOLS_IMAGE_DIR", path, "CRTOOLS_INIT_PID", "17"))
	if err != nil || e.Action != criuhook.PostDump || e.ImagesDir != path || e.InitPID != 17 || e.CRIU.PID != os.Getpid() || !e.CRIU.Alive() {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestFromEnvRefuses(t *testing.T) {
	for _, c := range []struct {
		says  string
		pairs []string
	}{
		{"CRTOOLS_SCRIPT_ACTION is not set", nil},
		{`CRTOOLS_IMAGE_DIR "" is no descriptor`, []string{"CRTOOLS_SCRIPT_ACTION", "pre-dump"}},
		{`CRTOOLS_IMAGE_DIR "/tmp/x" is no descriptor`, []string{"CRTOOLS_SCRIPT_ACTION", "pre-dump", "CRTOOLS_IMAGE_DIR", "/tmp/x"}},
		{"CRIU, process 2147483647", []string{"CRTOOLS_SCRIPT_ACTION", "pre-dump", "CRTOOLS_IMAGE_DIR", "/proc/2147483647/fd/4"}},
		{`CRTOOLS_INIT_PID "-4" is no process id`, []string{"CRTOOLS_SCRIPT_ACTION", "pre-dump",
			"CRTOOLS_IMAGE_DIR", fmt.Sprintf("/proc/%d/fd/0", os.Getpid()), "CRTOOLS_INIT_PID", "-4"}},
	} {
		_, err := criuhook.FromEnv(env(c.pairs...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: got %v, want %q", c.pairs, err, c.says)
		}
	}
}

// An action that is none of ours, one of a later CRIU's included, is no error
// whatever else is in the environment.
func TestOtherActions(t *testing.T) {
	for _, action := range []string{"network-lock", "network-unlock", "setup-namespaces", "post-restore", "pre-resume", "pre-stream", "of-the-future"} {
		e, err := criuhook.FromEnv(env("CRTOOLS_SCRIPT_ACTION", action, "CRTOOLS_IMAGE_DIR", "nonsense"))
		if err != nil {
			t.Errorf("%s: %v", action, err)
		}
		h := &criuhook.Hook{Log: io.Discard}
		if err := h.Run(t.Context(), e); err != nil {
			t.Errorf("%s: %v", action, err)
		}
	}
}
