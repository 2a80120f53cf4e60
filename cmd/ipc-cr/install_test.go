package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/criuconf"
)

// packageRoot is a tree with a file of runc's.
func packageRoot(t *testing.T) (root, runcConf string) {
	t.Helper()
	root = t.TempDir()
	runcConf = filepath.Join(root, criuconf.RuncFile)
	if err := os.MkdirAll(filepath.Dir(runcConf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(runcConf, []byte("# ours\ntcp-close\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, runcConf
}

func TestInstallReport(t *testing.T) {
	root, runcConf := packageRoot(t)
	flags := []string{"--root", root, "--binary", "/usr/local/bin/ipc-cr", "--runtime", "runc", "--runtime", "criu"}
	runCommand(t, append([]string{"install"}, flags...)...).wantError(t, 1, "install: every criu reads /etc/criu/default.conf", "it would run twice")

	flags = flags[:6]
	golden := func(name, command string, more ...string) {
		t.Helper()
		out := mustRun(t, append(append([]string{command}, flags...), more...)...)
		if strings.Contains(out, root) {
			t.Errorf("%s names --root: %s", name, out)
		}
		if strings.HasSuffix(name, ".json") {
			out = fixedJSON(t, out, root)
		}
		wantGolden(t, name, out)
	}
	golden("install-dry-run.txt", "install", "--dry-run")
	golden("install-dry-run.json", "install", "--dry-run", "--json")
	golden("install.txt", "install")
	golden("install-again.txt", "install")
	if text, err := os.ReadFile(runcConf); err != nil || string(text) != "action-script /usr/local/bin/ipc-cr-criu-hook\n# ours\ntcp-close\n" {
		t.Errorf("%q, %v", text, err)
	}
	golden("uninstall-dry-run.txt", "uninstall", "--dry-run")
	golden("uninstall.json", "uninstall", "--json")
	golden("uninstall-again.txt", "uninstall")
	if text, err := os.ReadFile(runcConf); err != nil || string(text) != "# ours\ntcp-close\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestInFrontReport(t *testing.T) {
	root, _ := packageRoot(t)
	golden := func(name string, args ...string) {
		t.Helper()
		out := mustRun(t, append(args, "--root", root, "--binary", "/usr/bin/ipc-cr")...)
		if strings.HasSuffix(name, ".json") {
			out = fixedJSON(t, out, root)
		}
		wantGolden(t, name, out)
	}
	golden("front-dry-run.txt", "install", "--in-front", "--dry-run")
	golden("front.txt", "install", "--in-front", "--runtime", "runc")
	golden("front-again.json", "install", "--in-front", "--json")
	golden("front-other.txt", "install", "--in-front", "--dir", "/opt/first", "--dry-run")
	golden("front-uninstall-hook.txt", "uninstall", "--runtime", "runc")
	golden("front-uninstall.txt", "uninstall", "--in-front")
	golden("front-uninstall-again.txt", "uninstall", "--in-front")

	place := filepath.Join(root, "usr/local/sbin/criu")
	if err := os.WriteFile(place, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	runCommand(t, "install", "--in-front", "--dir", "/usr/local/sbin", "--root", root, "--binary", "/usr/bin/ipc-cr").
		wantError(t, 1, "install: /usr/local/sbin/criu is there and was not made by ipc-cr")
}

func TestInstallUsage(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"install x", `unknown command "x"`},
		{"install --runtime", "flag needs an argument"},
		{"install --runtime docker", `--runtime "docker": choose runc, crun or criu`},
		{"install --runtime runc,crun", `--runtime "runc,crun": choose runc, crun or criu`},
		{"install --root=", "--root: a directory is wanted"},
		{"install --binary /usr/bin/ipc-cr", `--binary "/usr/bin/ipc-cr": an absolute path, and only with --root`},
		{"install --root /x --binary ipc-cr", `--binary "ipc-cr": an absolute path, and only with --root`},
		{"install --root /x --binary=", `--binary "": an absolute path, and only with --root`},
		{"install --dir /opt", `--dir "/opt": an absolute path, and only with --in-front`},
		{"install --in-front --dir opt", `--dir "opt": an absolute path, and only with --in-front`},
		{"install --in-front --dir=", `--dir "": an absolute path, and only with --in-front`},
		{"install --in-front=/opt", "invalid argument"},
		{"uninstall --dir /opt", `--dir "/opt": an absolute path, and only with --in-front`},
		{"uninstall x", `unknown command "x"`},
		{"uninstall --wait 5", "invalid argument"},
		{"uninstall --wait -1s", "--wait -1s: a duration that is not negative"},
		{"install --wait 1s", "unknown flag: --wait"},
		{"uninstall --runtime podman", `--runtime "podman": choose runc, crun or criu`},
	} {
		t.Run(c.args, func(t *testing.T) {
			runCommand(t, strings.Fields(c.args)...).wantError(t, 2, c.says, "(see --help)")
		})
	}
	for _, command := range []string{"install", "uninstall"} {
		help := mustRun(t, command, "--help")
		for _, flag := range []string{"--runtime NAME", "--in-front", "--dir DIR", "--root DIR", "--binary PATH", "--dry-run", "--json"} {
			if !strings.Contains(help, flag) {
				t.Errorf("%s --help does not know %s", command, flag)
			}
		}
	}
	if r := runCommand(t, "__complete", "install", "--runtime", ""); r.out != "runc\ncrun\ncriu\n:4\n" {
		t.Errorf("completion: %q", r.out)
	}
}

// The running program must be below the root, or be told.
func TestInstallFailures(t *testing.T) {
	root, _ := packageRoot(t)
	runCommand(t, "install", "--runtime", "runc", "--root", root).wantError(t, 1, "install: the running ", " is not below "+root)
	runCommand(t, "install", "--root", root, "--binary", "/usr/bin/ipc-cr").wantError(t, 1, "install: neither runc nor crun is on PATH")
	runCommand(t, "install", "--root", filepath.Join(root, "none"), "--binary", "/usr/bin/ipc-cr").wantError(t, 1, "install: open ", "no such file or directory")
	runCommand(t, "install", "--root", root, "--binary", "/usr/my bin/ipc-cr", "--runtime", "runc").wantError(t, 1, "/usr/my bin/ipc-cr-criu-hook", "cannot stand in a configuration file of criu")
}

// check tells of the hook and the settings too, by stable names.
func TestCheckHooks(t *testing.T) {
	r := runCommand(t, "check", "--json")
	var document struct {
		Hooks    []map[string]any
		Fronts   []map[string]any
		Settings map[string]any
	}
	if err := json.Unmarshal([]byte(r.out), &document); err != nil {
		t.Fatal(err)
	}
	for _, hook := range document.Hooks {
		fixField(t, hook)
		for _, name := range []string{"runtime", "program", "in_force"} {
			if hook[name] == nil {
				t.Errorf("%v has no %s", hook, name)
			}
		}
	}
	if len(document.Fronts) != 2 {
		t.Errorf("fronts: %v", document.Fronts)
	}
	for _, front := range document.Fronts {
		fixField(t, front)
		if front["of"] == nil || front["path"] == nil || front["in_front"] == nil {
			t.Errorf("%v lacks something", front)
		}
	}
	fixField(t, document.Settings)
	if document.Settings["file"] != "/etc/ipc-cr/config.toml" || document.Settings["ok"] == nil || document.Hooks == nil {
		t.Errorf("%v", document)
	}
	if text := runCommand(t, "check").out; !strings.Contains(text, "  settings: ") {
		t.Errorf("text: %q", text)
	}
}

func TestHookText(t *testing.T) {
	var text strings.Builder
	hooksText(&text, []criuconf.Hook{
		{Runtime: "runc", InForce: true, File: "/etc/criu/runc.conf", Line: 3},
		{Runtime: "crun", Detail: "not in /etc/criu/crun.conf", Remedy: "ipc-cr install --runtime crun"},
		{Runtime: "criu", InForce: true, File: "/etc/criu/default.conf", Line: 1, Detail: "in force 2 times", Remedy: "ipc-cr uninstall"},
	})
	frontsText(&text, []criuconf.Front{
		{Of: "this command", Detail: "/usr/sbin/criu is found first", Remedy: "ipc-cr install --in-front"},
		{Of: "services", InFront: true, Place: "/usr/local/sbin/criu", CRIU: "/usr/sbin/criu"},
		{Of: "services", InFront: true, Place: "/usr/local/sbin/criu", CRIU: "/usr/sbin/criu", Detail: "CRIU calls the hook for /etc/criu/runc.conf too"},
		{Of: "services", InFront: true, Place: "/usr/local/sbin/criu", CRIU: "/usr/sbin/criu", Detail: "no script", Remedy: "ipc-cr install --in-front"},
	})
	settingsText(&text, criuconf.Settings{File: "/c", OK: true, Values: &criuconf.Values{Neighbours: "stop", Later: "refuse", Again: "refuse", Existing: "refuse", Method: "auto"}})
	settingsText(&text, criuconf.Settings{File: "/c", Exists: true, OK: true, Values: &criuconf.Values{
		Neighbours: "ignore", NeighboursMax: 1e10, InPlace: "refuse", Later: "keep", Again: "rollback", Existing: "adopt", Method: "copy",
		HostQueues: []string{"0x1234:1000", "0x7:0"},
	}})
	settingsText(&text, criuconf.Settings{File: "/c", Exists: true, Detail: "/c:1: later: wrong"})
	wantGolden(t, "check-hooks.txt", text.String())
}
