package criuconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// tells is a criu that tells a version.
func tells(version string) string { return "#!/bin/sh\necho Version: " + version + "\n" }

// A criu that would abort on the hook is refused, whichever PATH it is found on,
// and nothing is planned; one that it is not known of is not.
func TestInstallRefusesOldCRIU(t *testing.T) {
	const (
		old    = "/usr/sbin/criu is CRIU 3.17: a CRIU before 3.19 aborts when a runtime starts it and its configuration names an action script: every checkpoint and restore would fail: install CRIU 3.19 or later"
		first  = "/opt/first/criu is CRIU 3.17: "
		before = "; until then ipc-cr uninstall, because /etc/criu/default.conf names the hook"
	)
	for name, c := range map[string]struct {
		version string            // of /usr/sbin/criu
		path    string            // before the usual
		more    map[string]string // programs and files
		options Options
		says    string // "" if it is not refused
	}{
		"3.17":                   {"3.17.1", "", nil, Options{}, old},
		"3.17, for runc":         {"3.17.1", "", nil, Options{Runtimes: []string{"runc"}}, old},
		"3.17, for criu":         {"3.17.1", "", nil, Options{Runtimes: []string{"criu"}}, old},
		"3.17, in front":         {"3.17.1", "", nil, Options{InFront: true}, old},
		"3.17, both":             {"3.17.1", "", nil, Options{InFront: true, Runtimes: []string{"criu"}}, old},
		"3.17, and there":        {"3.17.1", "", map[string]string{DefaultFile: testLine}, Options{}, old + before},
		"3.18":                   {"3.18", "", nil, Options{}, "is CRIU 3.18: "},
		"3.19":                   {"3.19", "", nil, Options{}, ""},
		"3.19, in front":         {"3.19", "", nil, Options{InFront: true}, ""},
		"unknown":                {"unknown", "", nil, Options{}, ""},
		"unknown, in front":      {"unknown", "", nil, Options{InFront: true}, ""},
		"the services' is old":   {"3.17.1", "/opt/first:", map[string]string{"/opt/first/criu": tells("4.1.1")}, Options{}, old},
		"this command's is old":  {"4.1.1", "/opt/first:", map[string]string{"/opt/first/criu": tells("3.17.1")}, Options{}, first},
		"in front of neither":    {"3.17.1", "/opt/first:/opt/new:", map[string]string{"/opt/new/criu": tells("4.1.1")}, Options{InFront: true, Dir: "/opt/first"}, ""},
		"in front of the old":    {"4.1.1", "/opt/first:/opt/old:", map[string]string{"/opt/old/criu": tells("3.17.1")}, Options{InFront: true, Dir: "/opt/first"}, "/opt/old/criu is CRIU 3.17: "},
		"in front of the newer":  {"3.17.1", "/opt/new:", map[string]string{"/opt/new/criu": tells("4.1.1")}, Options{InFront: true}, old}, // services find the other
		"in front, by its own":   {"3.17.1", "/opt/first:", nil, Options{InFront: true, Dir: "/opt/first"}, old},
		"and a runtime, by path": {"3.17.1", "/opt/first:/opt/new:", map[string]string{"/opt/new/criu": tells("4.1.1")}, Options{InFront: true, Dir: "/opt/first", Runtimes: []string{"runc"}}, old},
	} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, "root") // or nobody trusts the place in front
			j := hostWithCRIU(t, c.version, nil)
			t.Setenv("PATH", c.path+"/usr/local/sbin:/usr/sbin:/usr/bin")
			if err := errors.Join(os.Remove(j.root.abs(testScript)), os.Remove(j.root.abs(frontPlace))); err != nil {
				t.Fatal(err)
			}
			for path, text := range c.more {
				put(t, j.root.abs(path), text, 0o755)
			}
			c.options.Root = j.root.path // where the program is not looked at
			err := j.planInstall(t.Context(), c.options)
			if c.says == "" {
				if err != nil || len(j.steps) == 0 {
					t.Errorf("%v, %d steps", err, len(j.steps))
				}
				return
			}
			if !errors.Is(err, ErrOldCRIU) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if strings.Contains(err.Error(), "until then") != strings.Contains(c.says, "until then") {
				t.Errorf("%v", err)
			}
		})
	}
}

// What cannot be known is noted: whether the hook works depends on it.
func TestUnknownCRIUIsNoted(t *testing.T) {
	j := hostWithCRIU(t, "4.1.1", map[string]string{"/usr/sbin/criu": ""})
	j.askCRIU(t.Context())
	if want := "CRIU's version is unknown, and taken for 4.2 or later: " + ErrNoCRIU.Error(); len(j.report.Notes) != 1 || j.report.Notes[0] != want {
		t.Errorf("without a criu: %q, want %q", j.report.Notes, want)
	}
	o := host(t, "runc", nil)
	if r := mustRun(t, Install, o); len(r.Notes) != 1 || r.Notes[0] != notAsked {
		t.Errorf("below --root: %q", r.Notes)
	}
}

// Check says no where the hook would make every dump fail, and what helps.
func TestCheckOldCRIU(t *testing.T) {
	const (
		abort = "/usr/sbin/criu is CRIU 3.17: a CRIU before 3.19 aborts when a runtime starts it and its configuration names an action script"
		newer = "install CRIU 3.19 or later"
	)
	for name, c := range map[string]struct {
		files          map[string]string
		detail, remedy string
	}{
		"there":          {map[string]string{DefaultFile: testLine}, abort + ", and " + DefaultFile + " line 1 does: every checkpoint and restore fails", newer + ", or ipc-cr uninstall"},
		"not there":      {nil, abort, newer + ", then ipc-cr install"},
		"not understood": {map[string]string{DefaultFile: "log-file \"x\n"}, DefaultFile + ": line 1: a quote is not closed", newer + "; put the file right: criu may refuse it as well"},
	} {
		j := hostWithCRIU(t, "3.17.1", c.files)
		hooks := j.root.check(j.root.askCRIU(t.Context(), testBinary))
		if len(hooks) != 3 {
			t.Errorf("%s: %d hooks", name, len(hooks))
		}
		for _, h := range hooks {
			if h.InForce || h.Detail != c.detail || h.Remedy != c.remedy {
				t.Errorf("%s: %+v, want %q, %q", name, h, c.detail, c.remedy)
			}
		}
	}
}

func TestCheckFrontOldCRIU(t *testing.T) {
	j := hostWithCRIU(t, "3.17.1", nil)
	put(t, j.root.abs("/opt/new/criu"), tells("4.1.1"), 0o755)
	t.Setenv("PATH", "/opt/new:/usr/sbin")
	const abort = "/usr/sbin/criu is CRIU 3.17: a CRIU before 3.19 aborts when a runtime starts it and its configuration names an action script"
	want := []Front{
		{Of: "this command", Path: "/opt/new:/usr/sbin", CRIU: "/opt/new/criu", Detail: "/opt/new/criu is found first", Remedy: "none needed if checkpoints are quick enough; else ipc-cr install --in-front"},
		{Of: "services", Path: ServicesPath, Place: frontPlace, CRIU: "/usr/sbin/criu",
			Detail: abort + ", and " + frontPlace + " adds one: every dump that goes beside the namespace fails", Remedy: "install CRIU 3.19 or later, or ipc-cr uninstall --in-front"},
	}
	got := j.root.checkFront(testBinary, nil, j.root.askCRIU(t.Context(), testBinary))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	t.Setenv("PATH", "/usr/sbin")
	got = j.root.checkFront(testBinary, nil, j.root.askCRIU(t.Context(), testBinary))
	if f := got[0]; f.InFront || f.Detail != abort || f.Remedy != "install CRIU 3.19 or later, then ipc-cr install --in-front" {
		t.Errorf("not in front: %+v", f)
	}
}

// Starting a criu takes tens of milliseconds, and a slow one is waited for.
func TestCheckAsksEachCRIUOnce(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	counting := func(version string) string { return tells(version) + "echo $0 >> " + asked + "\n" }
	j := hostWithCRIU(t, "3.17.1", nil)
	put(t, j.root.abs("/usr/sbin/criu"), counting("3.17.1"), 0o755)
	put(t, j.root.abs("/opt/new/criu"), counting("4.1.1"), 0o755)
	t.Setenv("PATH", "/opt/new:/usr/sbin")
	hooks, fronts := j.root.checkBoth(t.Context(), testBinary)
	if len(hooks) == 0 || len(fronts) != 2 {
		t.Errorf("%d hooks, %d fronts", len(hooks), len(fronts))
	}
	got, err := os.ReadFile(asked)
	if want := j.root.abs("/opt/new/criu") + "\n" + j.root.abs("/usr/sbin/criu") + "\n"; err != nil || string(got) != want {
		t.Errorf("asked %q, %v, want %q", got, err, want)
	}
}
