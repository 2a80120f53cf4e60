package idle_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	_ "github.com/ipc-cr/ipc-cr/plugin/criuhook" // all that the hook is, which is to wait
	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
)

func TestIsHook(t *testing.T) {
	for argv0, want := range map[string]bool{
		"ipc-cr-criu-hook": true, "/usr/libexec/ipc-cr/ipc-cr-criu-hook": true,
		"ipc-cr": false, "ipc-cr-criu-hook/ipc-cr": false, "": false,
	} {
		if idle.IsHook(argv0) != want {
			t.Errorf("%q: %t", argv0, !want)
		}
	}
}

// inits starts the test binary under a name and returns what the Go runtime tells
// of it: a line for each package that was initialized. No test is run.
func inits(t *testing.T, argv0, action string) string {
	t.Helper()
	var errs strings.Builder
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{argv0, "-test.run=^$"}, Stderr: &errs}
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1", idle.ActionEnv+"="+action)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s at %q: %v\n%s", argv0, action, err, errs.String())
	}
	return errs.String()
}

// What does not concern the hook ends it before the program is initialized, and
// nothing else does.
func TestComesFirst(t *testing.T) {
	const hook = "/usr/local/bin/" + idle.Name
	late := []string{"plugin/criuhook", "plugin", "regexp/syntax", "github.com/cilium/ebpf", "google.golang.org/protobuf/internal/detrand"}
	for _, c := range []struct {
		argv0, action string
		ends          bool
	}{
		{hook, "network-lock", true},
		{hook, "post-resume", true},
		{hook, "of-the-future", true},
		{hook, idle.PreDump, false},
		{hook, idle.PostSetupNamespaces, false},
		{hook, "", false},
		{"/usr/local/bin/ipc-cr", "post-resume", false},
	} {
		began := inits(t, c.argv0, c.action)
		for _, path := range late {
			if there := strings.Contains(began, path+" @"); there == c.ends {
				t.Errorf("%s at %q: %s is initialized: %t\n%s", c.argv0, c.action, path, there, began)
			}
		}
	}
}

// At post-resume there is something to do where a restore by that CRIU has said so.
func TestOwed(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("CRTOOLS_IMAGE_DIR", "/proc/4711/fd/4")
	if err := os.Mkdir(run+"/ipc-cr", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ends bool
	}{
		{"hook-4026531836-4711-5-post-setup-namespaces", true},
		{"hook-4026531836-47115-5" + idle.Owed, true},
		{"hook-4026531836-4711-5" + idle.Owed, false},
	} {
		if err := os.WriteFile(run+"/ipc-cr/"+c.name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		began := inits(t, "/usr/local/bin/"+idle.Name, "post-resume")
		if ended := !strings.Contains(began, "plugin/criuhook @"); ended != c.ends {
			t.Errorf("with %s: it ended early: %t", c.name, ended)
		}
	}
}
