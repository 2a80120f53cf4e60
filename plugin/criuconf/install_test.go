package criuconf

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// host is a tree with programs on PATH and the files given, as Options.
func host(t *testing.T, programs string, files map[string]string) Options {
	t.Helper()
	root := t.TempDir()
	t.Setenv("PATH", "/usr/sbin:/usr/bin")
	for _, program := range strings.Fields(programs) {
		put(t, filepath.Join(root, "usr/sbin", program), "#!/bin/sh\n", 0o755)
	}
	for path, text := range files {
		put(t, filepath.Join(root, path), text, 0o644)
	}
	return Options{Root: root, Binary: "/usr/bin/ipc-cr"}
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// state lists what is in a tree: text and mode of files, and where links lead.
func state(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, root)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			found[name], err = os.Readlink(path)
			return err
		}
		text, err := os.ReadFile(path)
		found[name] = info.Mode().String() + " " + string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const (
	testScript = "/usr/bin/" + Name
	testLine   = "action-script " + testScript + "\n"
	testMade   = "-rw-r--r-- " + madeHere + testLine
)

// actions are the changes of a report, a word each.
func actions(r *Report) string {
	var list []string
	for _, c := range r.Changes {
		list = append(list, filepath.Base(c.Path)+":"+string(c.Action)+":"+strings.Join(c.Runtimes, "+"))
	}
	return strings.Join(list, " ")
}

func TestInstall(t *testing.T) {
	for name, c := range map[string]struct {
		programs string
		files    map[string]string
		runtimes string
		want     string
		runc     string
		crun     string
		criu     string
	}{
		"runc on PATH":        {"runc", nil, "", "runc.conf:created:runc", testMade, "", ""},
		"crun on PATH":        {"crun", nil, "", "crun.conf:created:crun", "", testMade, ""},
		"both share a file":   {"runc crun", nil, "", "runc.conf:created:runc+crun", testMade, "", ""},
		"both have one":       {"runc crun", map[string]string{RuncFile: "tcp-close\n", CrunFile: ""}, "", "runc.conf:changed:runc crun.conf:changed:crun", "-rw-r--r-- " + testLine + "tcp-close\n", "-rw-r--r-- " + testLine, ""},
		"crun reads runc's":   {"crun", map[string]string{RuncFile: "tcp-close\n"}, "", "runc.conf:changed:crun", "-rw-r--r-- " + testLine + "tcp-close\n", "", ""},
		"crun with its own":   {"", map[string]string{RuncFile: "tcp-close\n", CrunFile: "# x"}, "crun", "crun.conf:changed:crun", "-rw-r--r-- tcp-close\n", "-rw-r--r-- " + testLine + "# x", ""},
		"both asked for":      {"", map[string]string{RuncFile: ""}, "crun runc", "runc.conf:changed:runc+crun", "-rw-r--r-- " + testLine, "", ""},
		"criu":                {"runc", nil, "criu", "default.conf:created:criu", "", "", testMade},
		"beside another hook": {"runc", map[string]string{RuncFile: "action-script /opt/x\n"}, "", "runc.conf:changed:runc", "-rw-r--r-- " + testLine + "action-script /opt/x\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := host(t, c.programs, c.files)
			o.Runtimes = strings.Fields(c.runtimes)
			before := state(t, o.Root)
			want := map[string]string{testScript: "ipc-cr"}
			for path, text := range before {
				want[path] = text
			}
			for path, text := range map[string]string{RuncFile: c.runc, CrunFile: c.crun, DefaultFile: c.criu} {
				if text != "" {
					want[path] = text
				}
			}
			r := mustRun(t, Install, o)
			if got := strings.TrimPrefix(actions(r), Name+":created: "); got != c.want || r.Script != testScript {
				t.Errorf("%s of %s, want %s", got, r.Script, c.want)
			}
			wantState(t, "installed", o.Root, want)

			if again := actions(mustRun(t, Install, o)); strings.Contains(again, "created") || strings.Contains(again, "changed:") && !strings.Contains(again, "unchanged:") {
				t.Errorf("again: %s", again)
			}
			wantState(t, "installed again", o.Root, want)

			mustRun(t, Uninstall, o)
			wantState(t, "uninstalled", o.Root, before)
			if again := actions(mustRun(t, Uninstall, o)); strings.Contains(again, "removed") || strings.Contains(strings.ReplaceAll(again, "unchanged", ""), "changed") {
				t.Errorf("uninstalled again: %s", again)
			}
			wantState(t, "uninstalled again", o.Root, before)
		})
	}
}

func mustRun(t *testing.T, do func(context.Context, Options) (*Report, error), o Options) *Report {
	t.Helper()
	r, err := do(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// notesOf are the notes of a report, without the one that every install below
// another root has.
func notesOf(r *Report) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(r.Notes), func(note string) bool { return note == notAsked }), "\n")
}

func wantState(t *testing.T, when, root string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, state(t, root)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// A refusal names the reason and changes nothing at all.
func TestRefusals(t *testing.T) {
	other := "action-script /opt/" + Name + "\n"
	for name, c := range map[string]struct {
		do       func(context.Context, Options) (*Report, error)
		programs string
		files    map[string]string
		runtimes string
		says     string
	}{
		"no runtime":         {Install, "criu", nil, "", "install: neither runc nor crun is on PATH"},
		"unknown runtime":    {Install, "", nil, "docker", `install: runtime "docker": choose of runc, crun, criu`},
		"criu and runc":      {Install, "", nil, "criu runc", "it would run twice"},
		"criu after runc":    {Install, "", map[string]string{RuncFile: testLine}, "criu", "it would run twice"},
		"runc after criu":    {Install, "runc", map[string]string{DefaultFile: testLine}, "runc", "it would run twice"},
		"both by hand":       {Install, "runc", map[string]string{RuncFile: testLine, DefaultFile: testLine}, "", "it would run twice"},
		"crun alone":         {Install, "", map[string]string{RuncFile: "tcp-close\n"}, "crun", "install: crun has no /etc/criu/crun.conf and reads /etc/criu/runc.conf, as runc does: install --runtime runc --runtime crun"},
		"crun alone out":     {Uninstall, "", map[string]string{RuncFile: testLine}, "crun", "uninstall: crun has no /etc/criu/crun.conf and reads /etc/criu/runc.conf"},
		"not understood":     {Install, "runc", map[string]string{RuncFile: "# x\nlog-file \"x\n"}, "", "install: /etc/criu/runc.conf: line 2: a quote is not closed"},
		"the second":         {Install, "runc crun", map[string]string{RuncFile: "# x\n", CrunFile: other}, "", "install: /etc/criu/crun.conf: line 1: it runs /opt/" + Name},
		"another in runc's":  {Install, "", map[string]string{RuncFile: "tcp-close\n" + other}, "criu", "install: /etc/criu/runc.conf: line 2: it runs /opt/" + Name},
		"another in crun's":  {Install, "", map[string]string{CrunFile: other}, "criu", "install: /etc/criu/crun.conf: line 1: it runs /opt/" + Name},
		"another in criu's":  {Install, "", map[string]string{DefaultFile: other}, "runc", "install: /etc/criu/default.conf: line 1: it runs /opt/" + Name},
		"no directory":       {Install, "runc", map[string]string{"/etc/criu": "x"}, "", "/etc/criu/default.conf: not a directory"},
		"the script's place": {Install, "runc", map[string]string{testScript: "mine"}, "", testScript + " is there and is not a link to ipc-cr"},
	} {
		t.Run(name, func(t *testing.T) {
			o := host(t, c.programs, c.files)
			o.Runtimes = strings.Fields(c.runtimes)
			before := state(t, o.Root)
			r, err := c.do(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v, want %q", r, err, c.says)
			}
			wantState(t, "refused", o.Root, before)
		})
	}
}

// The hook of another ipc-cr where nobody reads both files is nobody's concern,
// and a file that is not understood and not to be changed is not either.
func TestNotRefused(t *testing.T) {
	other := "action-script /opt/" + Name + "\n"
	for _, files := range []map[string]string{{CrunFile: other}, {DefaultFile: other + "log-file \"x\n"}} {
		o := host(t, "", files)
		o.Runtimes = []string{"runc"}
		if got := actions(mustRun(t, Install, o)); got != Name+":created: runc.conf:created:runc" {
			t.Errorf("%v: %s", files, got)
		}
	}
}

func TestDryRun(t *testing.T) {
	o := host(t, "runc", map[string]string{RuncFile: "tcp-close\n"})
	o.DryRun = true
	before := state(t, o.Root)
	r := mustRun(t, Install, o)
	wantState(t, "dry run", o.Root, before)
	if diff := cmp.Diff([]Change{
		{Path: testScript, Action: Created, Runtimes: []string{}, Diff: []string{"+link to ipc-cr"}},
		{Path: RuncFile, Action: Changed, Runtimes: []string{"runc"}, Diff: []string{"+1: action-script " + testScript}},
	}, r.Changes); diff != "" {
		t.Errorf("install (-want +got):\n%s", diff)
	}
	o.DryRun = false
	mustRun(t, Install, o)
	o.DryRun = true
	before = state(t, o.Root)
	r = mustRun(t, Uninstall, o)
	wantState(t, "dry run", o.Root, before)
	if got := r.Changes[0].Diff; len(got) != 1 || got[0] != "-1: action-script "+testScript {
		t.Errorf("uninstall: %q", got)
	}
}

// The script stays while a file names it.
func TestUninstallOne(t *testing.T) {
	o := host(t, "", map[string]string{RuncFile: testLine, CrunFile: testLine, testScript[:9] + "ipc-cr": "x"})
	o.Runtimes = []string{"runc", "crun"}
	mustRun(t, Install, o)
	o.Runtimes = []string{"crun"}
	r := mustRun(t, Uninstall, o)
	if len(r.Notes) != 1 || r.Notes[0] != testScript+" stays: "+RuncFile+" names it" {
		t.Errorf("%q", r.Notes)
	}
	if s := state(t, o.Root); s[testScript] != "ipc-cr" || s[CrunFile] != "-rw-r--r-- " || s[RuncFile] != "-rw-r--r-- "+testLine {
		t.Errorf("%q", s)
	}
	o.Runtimes = nil
	mustRun(t, Uninstall, o)
	if s := state(t, o.Root); s[testScript] != "" || s[RuncFile] != "-rw-r--r-- " {
		t.Errorf("%q", s)
	}
}

// Who else reads a file that is changed is said.
func TestSharedFileIsNoted(t *testing.T) {
	for _, c := range []struct{ programs, runtimes, runc, want string }{
		{"runc crun", "runc", "", RuncFile + ": crun reads it too, because there is no " + CrunFile},
		{"crun", "", "tcp-close\n", RuncFile + ": crun reads it because there is no " + CrunFile + "; runc reads it too"},
		{"runc", "runc", "", ""},
		{"runc crun", "", "", ""},
	} {
		o := host(t, c.programs, nil)
		if c.runc != "" {
			put(t, filepath.Join(o.Root, RuncFile), c.runc, 0o644)
		}
		o.Runtimes = strings.Fields(c.runtimes)
		if got := notesOf(mustRun(t, Install, o)); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// A link in place of the file is not replaced by a file, nor what it leads to.
func TestLinkedFile(t *testing.T) {
	o := host(t, "runc", map[string]string{"/etc/criu/real": "tcp-close\n"})
	if err := os.Symlink("real", filepath.Join(o.Root, RuncFile)); err != nil {
		t.Fatal(err)
	}
	before := state(t, o.Root)
	if r, err := Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), RuncFile+" is not a regular file") {
		t.Errorf("%+v, %v", r, err)
	}
	wantState(t, "refused", o.Root, before)
	if err := syscall.Mkfifo(filepath.Join(o.Root, CrunFile), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Runtimes = []string{"crun"}
	if r, err := Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), CrunFile+" is not a regular file") {
		t.Errorf("FIFO: %+v, %v", r, err)
	}
}

// Mode and owner of a file stay; one that is made is for all to read.
func TestModeStays(t *testing.T) {
	nstest.Require(t, "root")
	o := host(t, "runc", map[string]string{RuncFile: "tcp-close\n"})
	path := filepath.Join(o.Root, RuncFile)
	if err := errors.Join(os.Chmod(path, 0o640), os.Chown(path, 7, 8)); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	mustRun(t, Install, o)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); info.Mode() != 0o640 || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("mode %o, owner %d:%d", info.Mode(), st.Uid, st.Gid)
	}
	o.Root = t.TempDir()
	o.Runtimes = []string{"runc"}
	mustRun(t, Install, o)
	if s := state(t, o.Root); s[RuncFile] != testMade {
		t.Errorf("%q", s)
	}
}
