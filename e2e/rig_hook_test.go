package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hookName is what the binary is to be called for CRIU, which passes no arguments.
const hookName = "ipc-cr-criu-hook"

// hookConf returns a CRIU configuration file that puts the hook in force, with
// other scripts that run before it.
func hookConf(t testing.TB, before ...string) string {
	t.Helper()
	return scriptConf(t, append(before, hookPath(t))...)
}

// hookPath returns the hook, as CRIU is to be told.
func hookPath(t testing.TB) string {
	t.Helper()
	hook := filepath.Join(shared(t), hookName)
	if err := os.Symlink(ipcCR(t), hook); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return hook
}

// scriptConf returns a CRIU configuration file with these action scripts. CRIU
// runs the one that it reads last first (criu/action-scripts.c, add_script).
func scriptConf(t testing.TB, scripts ...string) string {
	t.Helper()
	file, err := os.CreateTemp(shared(t), "criu-conf-")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Cleanup(func() { os.Remove(file.Name()) })
	for _, script := range slices.Backward(scripts) {
		if _, err := file.WriteString("action-script " + script + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	return file.Name()
}

// criuConfig is the annotation that names a CRIU configuration to runc and crun.
const criuConfig = "org.criu.config"

// hookSaid returns the lines of CRIU's logs under a directory that are the
// hook's or tell what went wrong.
func hookSaid(dir string) string {
	var said strings.Builder
	filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || name != "dump.log" && name != "restore.log" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "ipc-cr:") || strings.Contains(line, "Error") {
				said.WriteString(name + ": " + line)
			}
		}
		return nil
	})
	return without(said.String(), "RLIMIT_NOFILE", "cgroupd")
}

// without drops the lines that hold one of the texts.
func without(text string, texts ...string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(texts, func(some string) bool { return strings.Contains(line, some) }) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
