package criuconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestCheck(t *testing.T) {
	const elsewhere = "action-script /opt/" + Name + "\n"
	runc := func(h Hook) []Hook { h.Runtime, h.Program = "runc", "/usr/sbin/runc"; return []Hook{h} }
	for name, c := range map[string]struct {
		programs string
		files    map[string]string
		want     []Hook
	}{
		"no runtime":   {"", nil, []Hook{}},
		"no file":      {"runc", nil, runc(Hook{Detail: "not in " + RuncFile, Remedy: "ipc-cr install --runtime runc"})},
		"commented":    {"runc", map[string]string{RuncFile: "#" + testLine}, runc(Hook{Detail: "not in " + RuncFile, Remedy: "ipc-cr install --runtime runc"})},
		"in force":     {"runc", map[string]string{RuncFile: "tcp-close\n" + testLine}, runc(Hook{InForce: true, File: RuncFile, Line: 2, Script: testScript})},
		"through criu": {"runc", map[string]string{DefaultFile: testLine}, runc(Hook{InForce: true, File: DefaultFile, Line: 1, Script: testScript})},
		"twice": {"runc", map[string]string{RuncFile: testLine, DefaultFile: testLine}, runc(Hook{InForce: true, File: RuncFile, Line: 1, Script: testScript,
			Detail: "in force 2 times: criu runs it as often", Remedy: "ipc-cr uninstall --runtime runc --runtime criu, then ipc-cr install"})},
		"twice in criu's": {"runc", map[string]string{DefaultFile: testLine + testLine}, runc(Hook{InForce: true, File: DefaultFile, Line: 1, Script: testScript,
			Detail: "in force 2 times: criu runs it as often", Remedy: "ipc-cr uninstall --runtime criu, then ipc-cr install --runtime criu"})},
		"script is gone": {"runc", map[string]string{RuncFile: elsewhere}, runc(Hook{File: RuncFile, Line: 1, Script: "/opt/" + Name,
			Detail: "/opt/" + Name + ": no such file or directory: every dump and restore fails", Remedy: "remove line 1 of " + RuncFile + ", then ipc-cr install"})},
		"not understood": {"runc", map[string]string{RuncFile: testLine + "log-file \"x\n"}, runc(Hook{File: RuncFile,
			Detail: RuncFile + ": line 2: a quote is not closed", Remedy: "put the file right: criu may refuse it as well"})},
		"crun has runc's": {"crun", map[string]string{RuncFile: testLine}, []Hook{{Runtime: "crun", Program: "/usr/sbin/crun", InForce: true, File: RuncFile, Line: 1, Script: testScript}}},
		"crun's hides runc's": {"crun", map[string]string{RuncFile: testLine, CrunFile: ""}, []Hook{{Runtime: "crun", Program: "/usr/sbin/crun",
			Detail: "not in " + CrunFile, Remedy: "ipc-cr install --runtime crun"}}},
		"crun needs both": {"crun", map[string]string{RuncFile: ""}, []Hook{{Runtime: "crun", Program: "/usr/sbin/crun",
			Detail: "not in " + RuncFile, Remedy: "ipc-cr install --runtime runc --runtime crun"}}},
	} {
		t.Run(name, func(t *testing.T) {
			o := host(t, c.programs, c.files)
			put(t, filepath.Join(o.Root, testScript), "", 0o755)
			root, err := openTree(o.Root)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if diff := cmp.Diff(c.want, root.check(nil)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A file that is a link is read through it, as criu does.
func TestCheckFollowsLinks(t *testing.T) {
	o := host(t, "runc", map[string]string{"/etc/criu/real": testLine})
	put(t, filepath.Join(o.Root, testScript), "", 0o755)
	if err := os.Symlink("real", filepath.Join(o.Root, RuncFile)); err != nil {
		t.Fatal(err)
	}
	root, err := openTree(o.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if got := root.check(nil); len(got) != 1 || !got[0].InForce {
		t.Errorf("%+v", got)
	}
}

func TestCheckSettings(t *testing.T) {
	dir := t.TempDir()
	missing := settings(filepath.Join(dir, "config.toml"))
	if !missing.OK || missing.Exists || missing.Values.Neighbours != "stop" {
		t.Errorf("missing: %+v", missing)
	}
	path := filepath.Join(dir, "config.toml")
	put(t, path, "neighbours = \"halt\"\n", 0o644)
	wrong := settings(path)
	if wrong.OK || !wrong.Exists || wrong.Values != nil || !strings.Contains(wrong.Detail, path) {
		t.Errorf("wrong: %+v", wrong)
	}
}

// A user's file is refused, which is tested where it is read.
func TestCheckSettingsOfRoot(t *testing.T) {
	nstest.Require(t, "userns")
	path := filepath.Join(t.TempDir(), "config.toml")
	put(t, path, "neighbours_max = \"2s\"\nhost_queues = [\"4660:7\"]\n", 0o644)
	right := settings(path)
	want := &Values{Neighbours: "stop", NeighboursMax: 2e9, Later: "refuse", Again: "refuse", Existing: "refuse", Method: "auto", HostQueues: []string{"0x1234:7"}}
	if diff := cmp.Diff(want, right.Values); diff != "" || !right.OK || !right.Exists {
		t.Errorf("right (-want +got):\n%s", diff)
	}
}
