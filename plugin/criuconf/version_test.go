package criuconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestVersionOf(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   version
		twice  bool
		aborts bool
	}{
		"4.1.1":       {"echo Version: 4.1.1", version{4, 1}, true, false},
		"2.12":        {"echo Version: 2.12", version{2, 12}, true, true},
		"3.9":         {"echo Version: 3.9", version{3, 9}, true, true},
		"3.17":        {"echo Version: 3.17.1; echo GitID: v3.17.1", version{3, 17}, true, true},
		"3.18":        {"echo Version: 3.18", version{3, 18}, true, true},
		"3.19":        {"echo Version: 3.19", version{3, 19}, true, false},
		"4.0":         {"echo Version: 4.0", version{4, 0}, true, false},
		"4.2":         {"echo Version: 4.2", version{4, 2}, false, false},
		"4.10":        {"echo Version: 4.10.1", version{4, 10}, false, false},
		"5.0":         {"echo GitID: v5.0; echo Version: 5.0", version{5, 0}, false, false},
		"fails":       {"echo Version: 4.1.1; exit 1", version{}, false, false},
		"something":   {"echo criu 4.1.1", version{}, false, false},
		"half of one": {"echo Version: 4", version{}, false, false},
		"silent":      {"", version{}, false, false},
		"then much":   {"echo Version: 4.1.1; head -c 1000000 /dev/zero", version{4, 1}, true, false},
		"after much":  {"head -c 1000000 /dev/zero; echo; echo Version: 4.1.1", version{}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			criu := filepath.Join(t.TempDir(), "criu")
			put(t, criu, "#!/bin/sh\n[ \"$*\" = --version ] || exit 2\n"+c.script+"\n", 0o755)
			if got := versionOf(t.Context(), criu, answering); got != c.want || got.twice() != c.twice || got.aborts() != c.aborts {
				t.Errorf("%v, twice %t, aborts %t, want %+v", got, got.twice(), got.aborts(), c)
			}
		})
	}
	if got := versionOf(t.Context(), "/no/such/criu", answering); got != (version{}) {
		t.Errorf("of none: %v", got)
	}
}

// A criu that does not answer is not waited for, nor what it has started and what
// holds its output.
func TestVersionInTime(t *testing.T) {
	for _, script := range []string{"sleep 15", "sleep 15 & wait", "echo Version: 4.1.1; sleep 15 &"} {
		criu := filepath.Join(t.TempDir(), "criu")
		put(t, criu, "#!/bin/sh\n"+script+"\n", 0o755)
		began := time.Now()
		got := versionOf(t.Context(), criu, 100*time.Millisecond)
		if took := time.Since(began); got != (version{}) || took > 10*time.Second {
			t.Errorf("%s: %v after %v", script, got, took)
		}
	}
}

// Root asks only a criu that nobody else can exchange, wherever a link to it is;
// install says why it did not.
func TestVersionUntrusted(t *testing.T) {
	nstest.Require(t, "root") // for others any criu will do
	j := hostWithCRIU(t, "4.1.1", nil)
	dir, ran := j.root.abs("/usr/sbin"), j.root.abs("/ran")
	put(t, filepath.Join(dir, "criu"), "#!/bin/sh\n: >"+ran+"\necho Version: 4.1.1\n", 0o755)
	link(t, j.root.path, "/home/bin/criu", "../../usr/sbin/criu")
	if err := os.Chown(j.root.abs("/home/bin"), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/home/bin")
	if all := j.root.askCRIU(t.Context(), testBinary); all.first() != (version{4, 1}) || all.unknown() != nil {
		t.Errorf("through a link: %+v", all)
	}
	if err := errors.Join(os.Remove(ran), os.Chown(dir, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/home/bin", "/usr/sbin"} {
		t.Setenv("PATH", path)
		if all := j.root.askCRIU(t.Context(), testBinary); all.first() != (version{}) || !errors.Is(all.unknown(), ErrWritable) {
			t.Errorf("on %s: %+v", path, all)
		}
	}
	t.Setenv("PATH", "/usr/sbin")
	j.askCRIU(t.Context())
	if err := j.planRuntimes(Options{}); err != nil {
		t.Fatal(err)
	}
	want := "CRIU's version is unknown, and taken for 4.2 or later: ipc-cr would run " + dir + "/criu as root: " + dir + ": others than root can write it: it belongs to uid 1000"
	if got := strings.Join(j.report.Notes, "\n"); got != want {
		t.Errorf("notes %q, want %q", got, want)
	}
	put(t, j.root.abs(RuncFile), testLine, 0o644)
	hooks := j.root.check(j.criu)
	if !hooks[0].InForce {
		t.Errorf("not in force for runc: %+v", hooks[0])
	}
	for _, h := range hooks {
		if h.InForce && (h.Detail != want || h.Remedy == "") {
			t.Errorf("check of %s: %q, want %q", h.Runtime, h.Detail, want)
		}
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("it was run")
	}
}

// hostWithCRIU is a host of that version of CRIU, with runc, crun and files, and
// ipc-cr in front of criu. An empty program is none.
func hostWithCRIU(t *testing.T, version string, files map[string]string) *job {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		dir = safe(t) // else the criu would not be asked
	}
	j := asHost(t, dir, "/usr/local/sbin:/usr/sbin:/usr/bin", []string{"usr/sbin/runc", "usr/sbin/crun"},
		map[string]string{frontPlace: "../../bin/ipc-cr"})
	put(t, j.root.abs("/usr/sbin/criu"), "#!/bin/sh\necho Version: "+version+"\n", 0o755)
	put(t, j.root.abs(testScript), program, 0o755)
	for path, text := range files {
		put(t, j.root.abs(path), text, 0o644)
		if text == "" && strings.HasPrefix(path, "/usr/sbin/") {
			if err := os.Remove(j.root.abs(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return j
}

// Where the hook goes when nobody names a runtime: where it is, and else where
// the host's criu runs it once.
func TestInstallByVersion(t *testing.T) {
	const (
		everyone = DefaultFile + ", which every criu reads, whoever starts it: CRIU 4.1 runs the hook once from there, twice from runc's file, and not at all from crun's"
		stays    = "CRIU 4.1 runs the hook twice from " + RuncFile + ", and would run it once from " + DefaultFile + ": "
		unread   = "CRIU 4.1 reads no file for crun, whose checkpoints go without the hook, and would run it from " + DefaultFile + ": "
		without  = "CRIU 4.1 reads no file for crun, whose checkpoints go without the hook: " + DefaultFile + " is read for it, and by every other criu"
		twice    = "CRIU 4.1 runs the hook twice from " + RuncFile + ", which costs milliseconds, and once from " + DefaultFile
		runcs    = "ipc-cr uninstall --runtime runc, then ipc-cr install"
		cruns    = "ipc-cr uninstall --runtime crun, then ipc-cr install"
		both     = "ipc-cr uninstall --runtime runc --runtime crun, then ipc-cr install"
		silent   = "CRIU's version is unknown, and taken for 4.2 or later: /usr/sbin/criu says no version"
	)
	for name, c := range map[string]struct {
		version  string
		files    map[string]string
		runtimes string
		want     string
		notes    string
	}{
		"old":                     {"4.1.1", nil, "", "default.conf:created:runc+crun", everyone},
		"old, files there":        {"4.1.1", map[string]string{RuncFile: "tcp-close\n", DefaultFile: "tcp-close\n"}, "", "default.conf:changed:runc+crun", everyone},
		"old, there already":      {"4.1.1", map[string]string{DefaultFile: testLine}, "", "default.conf:unchanged:runc+crun", ""},
		"old, with a runtime":     {"4.1.1", map[string]string{RuncFile: testLine}, "", "runc.conf:unchanged:runc+crun", unread + runcs + "\n" + stays + runcs},
		"old, with crun":          {"4.1.1", map[string]string{CrunFile: testLine}, "", "runc.conf:created:runc crun.conf:unchanged:crun", unread + both + "\n" + stays + both},
		"old, with both":          {"4.1.1", map[string]string{RuncFile: testLine, CrunFile: testLine}, "", "runc.conf:unchanged:runc crun.conf:unchanged:crun", unread + both + "\n" + stays + both},
		"old, crun alone":         {"4.1.1", map[string]string{CrunFile: testLine, "/usr/sbin/runc": ""}, "", "crun.conf:unchanged:crun", unread + cruns},
		"old, crun by runc's":     {"4.1.1", map[string]string{RuncFile: testLine, "/usr/sbin/runc": ""}, "", "runc.conf:unchanged:crun", unread + runcs},
		"old, runc alone":         {"4.1.1", map[string]string{RuncFile: testLine, "/usr/sbin/crun": ""}, "", "runc.conf:unchanged:runc", stays + runcs},
		"old, asked for runc":     {"4.1.1", nil, "runc", "runc.conf:created:runc", twice + "\n" + RuncFile + ": crun reads it too, because there is no " + CrunFile},
		"old, asked for crun":     {"4.1.1", nil, "crun", "crun.conf:created:crun", without},
		"old, asked for both":     {"4.1.1", nil, "runc crun", "runc.conf:created:runc+crun", without + "\n" + twice},
		"old, asked for criu":     {"4.1.1", nil, "criu", "default.conf:created:criu", ""},
		"new, asked for both":     {"4.2", nil, "runc crun", "runc.conf:created:runc+crun", ""},
		"new":                     {"4.2", nil, "", "runc.conf:created:runc+crun", ""},
		"new, in everyone's file": {"4.2", map[string]string{DefaultFile: testLine}, "", "default.conf:unchanged:runc+crun", ""},
		"unknown":                 {"unknown", nil, "", "runc.conf:created:runc+crun", silent},
		"unknown, asked for criu": {"unknown", nil, "criu", "default.conf:created:criu", silent},
	} {
		t.Run(name, func(t *testing.T) {
			j := hostWithCRIU(t, c.version, c.files)
			j.askCRIU(t.Context())
			if err := j.planRuntimes(Options{Runtimes: strings.Fields(c.runtimes)}); err != nil {
				t.Fatal(err)
			}
			for _, s := range j.steps {
				j.report.Changes = append(j.report.Changes, s.change)
			}
			if got := actions(j.report); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if got := strings.Join(j.report.Notes, "\n"); got != c.notes {
				t.Errorf("notes %q, want %q", got, c.notes)
			}
		})
	}
}

// The hook of another ipc-cr is not joined, whichever file is right for the
// host's criu.
func TestInstallBesideAnother(t *testing.T) {
	for _, c := range []struct{ version, file string }{{"4.1.1", RuncFile}, {"4.1.1", CrunFile}, {"4.1.1", DefaultFile}, {"4.2", RuncFile}, {"4.2", DefaultFile}} {
		j := hostWithCRIU(t, c.version, map[string]string{c.file: "tcp-close\naction-script /opt/" + Name + "\n"})
		j.askCRIU(t.Context())
		err := j.planRuntimes(Options{})
		if want := c.file + ": line 2: it runs /opt/" + Name + ", the hook of another ipc-cr: remove that line first"; err == nil || err.Error() != want {
			t.Errorf("CRIU %s: %v, want %q", c.version, err, want)
		}
	}
}

func TestCheckByVersion(t *testing.T) {
	const (
		unread = "CRIU 4.1 reads no file for crun"
		spare  = "none needed, it costs milliseconds; to spare them "
		runcs  = "ipc-cr uninstall --runtime runc, then ipc-cr install"
		cruns  = "ipc-cr uninstall --runtime crun, then ipc-cr install"
		both   = "ipc-cr uninstall --runtime runc --runtime crun, then ipc-cr install"
	)
	inRunc, inCrun := map[string]string{RuncFile: testLine}, map[string]string{CrunFile: testLine}
	inBoth := map[string]string{RuncFile: testLine, CrunFile: testLine}
	inDefault := map[string]string{DefaultFile: testLine}
	for name, c := range map[string]struct {
		version        string
		files          map[string]string
		inForce        bool
		detail, remedy string
	}{
		"runc: old, in runc's":           {"4.1.1", inRunc, true, "CRIU 4.1 runs it twice", spare + runcs},
		"runc: old, in both's":           {"4.1.1", inBoth, true, "CRIU 4.1 runs it twice", spare + both},
		"runc: old, in everyone's":       {"4.1.1", inDefault, true, "", ""},
		"runc: old, nowhere":             {"4.1.1", nil, false, "not in " + RuncFile, "ipc-cr install"},
		"runc: old, in crun's":           {"4.1.1", inCrun, false, "not in " + RuncFile, cruns},
		"runc: new, in runc's":           {"4.2", inRunc, true, "", ""},
		"runc: new, nowhere":             {"4.2", nil, false, "not in " + RuncFile, "ipc-cr install --runtime runc"},
		"crun: old, in crun's":           {"4.1.1", inCrun, false, unread + ", not " + CrunFile, cruns},
		"crun: old, in runc's":           {"4.1.1", inRunc, false, unread + ", not " + RuncFile, runcs},
		"crun: old, in both's":           {"4.1.1", inBoth, false, unread + ", not " + CrunFile, both},
		"crun: old, hidden":              {"4.1.1", map[string]string{RuncFile: testLine, CrunFile: ""}, false, "not in " + DefaultFile, runcs},
		"crun: old, in everyone's":       {"4.1.1", inDefault, true, "", ""},
		"crun: old, in crun's, too":      {"4.1.1", map[string]string{CrunFile: testLine, DefaultFile: testLine}, true, "", ""},
		"crun: old, twice in everyone's": {"4.1.1", map[string]string{DefaultFile: testLine + testLine}, true, "in force 2 times: criu runs it as often", "ipc-cr uninstall --runtime criu, then ipc-cr install --runtime criu"},
		"crun: old, nowhere":             {"4.1.1", nil, false, "not in " + DefaultFile, "ipc-cr install"},
		"crun: new, in crun's":           {"4.2", inCrun, true, "", ""},
		"crun: unknown, in crun's":       {"unknown", inCrun, true, "CRIU's version is unknown, and taken for 4.2 or later: /usr/sbin/criu says no version", "see what criu --version says"},
	} {
		t.Run(name, func(t *testing.T) {
			j := hostWithCRIU(t, c.version, c.files)
			want := Hook{Runtime: name[:len("runc")], InForce: c.inForce, Detail: c.detail, Remedy: c.remedy}
			for _, h := range j.root.check(j.root.askCRIU(t.Context(), testBinary)) {
				if h.Runtime != want.Runtime {
					continue
				}
				if (h.File != "") != (c.inForce || strings.HasPrefix(c.detail, unread)) || (h.File != "") != (h.Line == 1 && h.Script == testScript) {
					t.Errorf("%+v", h)
				}
				got := Hook{Runtime: h.Runtime, InForce: h.InForce, Detail: h.Detail, Remedy: h.Remedy}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
		})
	}
}

// What check advises for crun on an old CRIU puts the hook into force for it.
func TestCheckAdvice(t *testing.T) {
	for _, files := range []map[string]string{{RuncFile: testLine}, {CrunFile: testLine}, {RuncFile: testLine, CrunFile: testLine}, {RuncFile: testLine, CrunFile: ""}} {
		j := hostWithCRIU(t, "4.1.1", files)
		j.askCRIU(t.Context())
		crun := func() Hook { return j.root.check(j.criu)[1] }
		advice := crun().Remedy
		out, found := strings.CutSuffix(advice, ", then ipc-cr install")
		if !found {
			t.Errorf("%v: %q", files, advice)
			continue
		}
		o := Options{Root: j.root.path, Binary: testBinary, Runtimes: strings.Split(out, " --runtime ")[1:]}
		mustRun(t, Uninstall, o)
		if err := j.planRuntimes(Options{}); err != nil {
			t.Fatal(err)
		}
		for _, s := range j.steps {
			if s.do == nil {
				t.Errorf("%v: %s: %+v", files, advice, s.change)
			} else if err := s.do(); err != nil {
				t.Fatal(err)
			}
		}
		if h := crun(); !h.InForce || h.File != DefaultFile {
			t.Errorf("%v: %s: %+v", files, advice, h)
		}
	}
}
