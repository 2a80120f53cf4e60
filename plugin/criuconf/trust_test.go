package criuconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// safe is a directory that users cannot write, down from /, and from which root
// can run programs: /run is mounted noexec in many places.
func safe(t *testing.T) string {
	t.Helper()
	nstest.Require(t, "root")
	dir, err := os.MkdirTemp("/var/lib", "ipc-cr-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOnlyRootWrites(t *testing.T) {
	dir := filepath.Join(safe(t), "bin")
	program := filepath.Join(dir, "ipc-cr")
	fresh := func(t *testing.T) {
		os.RemoveAll(dir)
		put(t, program, "", 0o755)
	}
	fresh(t)
	if err := OnlyRootWrites(program); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func() error
		says  string
	}{
		"group can write the program":   {func() error { return os.Chmod(program, 0o775) }, program + ": others than root can write it: its mode is 0775"},
		"others can write the program":  {func() error { return os.Chmod(program, 0o757) }, "its mode is 0757"},
		"group can write the directory": {func() error { return os.Chmod(dir, 0o775) }, dir + ": others than root can write it: its mode is 0775"},
		"a sticky directory":            {func() error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "its mode is 1777"},
		"a user's program":              {func() error { return os.Chown(program, 1000, 0) }, program + ": others than root can write it: it belongs to uid 1000"},
		"a user's directory":            {func() error { return os.Chown(dir, 1000, 0) }, dir + ": others than root can write it: it belongs to uid 1000"},
	} {
		fresh(t)
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		if err := OnlyRootWrites(program); !errors.Is(err, ErrWritable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	fresh(t)
	if err := os.Symlink(program, program+"-link"); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{program + "-link": "is not a regular file", dir: "is not a regular file", dir + "/none": "no such file or directory"} {
		if err := OnlyRootWrites(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
	}
}

// On the host itself nothing is installed that users could exchange.
func TestInstallRefusesUnsafeProgram(t *testing.T) {
	nstest.Require(t, "root")
	program := filepath.Join(t.TempDir(), "ipc-cr") // below /tmp
	put(t, program, "", 0o755)
	r, err := Install(t.Context(), Options{Binary: program, Runtimes: []string{"runc"}, DryRun: true})
	if !errors.Is(err, ErrWritable) {
		t.Errorf("%+v, %v", r, err)
	}
}
