package criuconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testBinary = "/usr/bin/ipc-cr"
	frontPlace = "/usr/local/sbin/criu"
	program    = "#!/bin/sh\n"
)

// asHost is a tree that is taken for the host, with links and programs in it. A
// link to a program ends in the name of what it leads to.
func asHost(t *testing.T, dir, path string, programs []string, links map[string]string) *job {
	t.Helper()
	t.Setenv("PATH", path)
	o := Options{Root: dir, Binary: testBinary, InFront: true}
	put(t, filepath.Join(o.Root, testBinary), program, 0o755)
	for _, p := range programs {
		put(t, filepath.Join(o.Root, p), p, 0o755)
	}
	for from, to := range links {
		link(t, o.Root, from, to)
	}
	j, err := newJob(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.root.Close)
	j.root.host = true
	return j
}

func link(t *testing.T, root, from, to string) {
	t.Helper()
	path := filepath.Join(root, from)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// Where the link goes, by where the real criu is and what is in the way.
func TestChoosePlace(t *testing.T) {
	const usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
	for name, c := range map[string]struct {
		path     string
		programs string
		links    map[string]string
		dir      string
		want     string // the place, or what the error says
	}{
		"a package's":          {usual, "/usr/sbin/criu", nil, "", frontPlace},
		"in local bin":         {usual, "/usr/local/bin/criu", nil, "", frontPlace},
		"in local sbin":        {usual, "/usr/local/sbin/criu", nil, "", "/usr/local/sbin/criu is there and was not made by ipc-cr; /usr/local/sbin/criu is found before anything in /usr/local/bin: name a directory that is searched first (--dir)"},
		"in local sbin, asked": {"/opt/first:" + usual, "/usr/local/sbin/criu", nil, "/opt/first", "/opt/first/criu"},
		"asked, but later":     {usual, "/usr/sbin/criu", nil, "/opt/first", "/usr/sbin/criu is found before anything in /opt/first"},
		"asked by a relative":  {usual, "/usr/sbin/criu", nil, "opt", `directory "opt": not an absolute path`},
		"no criu":              {usual, "/usr/sbin/criu-ns", nil, "", ErrNoCRIU.Error()},
		"a criu on no PATH":    {usual, "/opt/criu", nil, "", ErrNoCRIU.Error()},
		"on this PATH only":    {"/usr/local/sbin:/opt", "/opt/criu", nil, "", frontPlace},
		"not executable":       {usual, "/usr/sbin/criu/x", nil, "", ErrNoCRIU.Error()},
		"there already":        {usual, "/usr/sbin/criu", map[string]string{"/usr/local/bin/criu": testBinary}, "", "/usr/local/bin/criu"},
		"another ipc-cr":       {usual, "/usr/sbin/criu /opt/ipc-cr", map[string]string{frontPlace: "/opt/ipc-cr"}, "", "/usr/local/sbin/criu is a link to /opt/ipc-cr, the ipc-cr of another place: uninstall that one first"},
		"another's, gone":      {usual, "/usr/sbin/criu", map[string]string{frontPlace: "/opt/ipc-cr"}, "", frontPlace},
		"somebody's link":      {usual, "/usr/sbin/criu", map[string]string{frontPlace: "../../sbin/criu"}, "", frontPlace + " is found before anything in /usr/local/bin"},
		"sbin is bin":          {"/usr/local/bin:/usr/bin", "/usr/bin/criu /usr/local/bin/x", map[string]string{"/usr/local/sbin": "bin"}, "", "/usr/local/bin/criu"},
	} {
		t.Run(name, func(t *testing.T) {
			j := asHost(t, t.TempDir(), c.path, strings.Fields(c.programs), c.links)
			got, err := j.choosePlace(c.dir)
			if err != nil {
				got = err.Error()
			}
			if !strings.HasSuffix(got, c.want) && !strings.Contains(got, c.want) || (err == nil) != strings.HasSuffix(c.want, "/criu") {
				t.Errorf("%q, want %q", got, c.want)
			}
			if c.want == ErrNoCRIU.Error() && !errors.Is(err, ErrNoCRIU) {
				t.Errorf("%v is not ErrNoCRIU", err)
			}
		})
	}
}

// Installed, again, and taken away: nothing is left but what was there.
func TestInFront(t *testing.T) {
	for name, c := range map[string]struct {
		runtimes string
		links    map[string]string
		want     string
	}{
		"alone":         {"", nil, Name + ":created: criu:created:"},
		"with a hook":   {"runc", nil, Name + ":created: runc.conf:created:runc criu:created:"},
		"after another": {"", map[string]string{frontPlace: "/opt/ipc-cr"}, Name + ":created: criu:changed:"},
	} {
		t.Run(name, func(t *testing.T) {
			o := host(t, "criu", nil)
			o.InFront, o.Runtimes = true, strings.Fields(c.runtimes)
			before := state(t, o.Root)
			for from, to := range c.links {
				link(t, o.Root, from, to)
			}
			r := mustRun(t, Install, o)
			if got := actions(r); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			installed := state(t, o.Root)
			if installed[frontPlace] != testBinary || installed[testScript] != "ipc-cr" {
				t.Errorf("installed: %q", installed)
			}
			if noted := strings.Contains(notesOf(r), "restores are CRIU's own"); noted != (c.runtimes == "") {
				t.Errorf("notes %q", r.Notes)
			}
			if got := actions(mustRun(t, Install, o)); strings.Count(got, ":unchanged:") != len(r.Changes) {
				t.Errorf("again: %s", got)
			}
			wantState(t, "again", o.Root, installed)
			put(t, filepath.Join(o.Root, testBinary+".new"), "a newer one", 0o755)
			if err := os.Rename(filepath.Join(o.Root, testBinary+".new"), filepath.Join(o.Root, testBinary)); err != nil {
				t.Fatal(err)
			}
			before[testBinary] = "-rwxr-xr-x a newer one"
			o.InFront, o.Runtimes = false, nil
			mustRun(t, Uninstall, o)
			wantState(t, "uninstalled", o.Root, before)
		})
	}
}

// What is not ours stays, and nothing is done where it is in the way.
func TestInFrontOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		links map[string]string
		files map[string]string
		says  string
		note  string
	}{
		"a program":       {nil, map[string]string{frontPlace: program, "/usr/local/bin/criu": program}, frontPlace + " is there and was not made by ipc-cr", ""},
		"a link":          {map[string]string{frontPlace: "/opt/criu"}, map[string]string{"/usr/local/bin/criu": program}, frontPlace + " is there and was not made by ipc-cr", ""},
		"another ipc-cr":  {map[string]string{frontPlace: "../../../opt/ipc-cr"}, map[string]string{"/opt/ipc-cr": program, "/usr/local/bin/criu": program}, "the ipc-cr of another place", frontPlace + " stays: it is a link to ../../../opt/ipc-cr, the ipc-cr of another place"},
		"no directory":    {nil, map[string]string{"/usr/local": "x"}, "/usr/local/sbin: not a directory", ""},
		"the hook's name": {nil, map[string]string{testScript: program}, testScript + " is there and is not a link to ipc-cr", testScript + " stays: it is not a link to ipc-cr"},
	} {
		t.Run(name, func(t *testing.T) {
			o := host(t, "criu", c.files)
			o.InFront = true
			for from, to := range c.links {
				link(t, o.Root, from, to)
			}
			before := state(t, o.Root)
			if r, err := Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v, want %q", r, err, c.says)
			}
			wantState(t, "refused", o.Root, before)
			r := mustRun(t, Uninstall, o)
			if c.note != "" && (len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], c.note)) {
				t.Errorf("notes %q, want %q", r.Notes, c.note)
			}
			wantState(t, "nothing to uninstall", o.Root, before)
		})
	}
}

// The script stays as long as a link in front needs it, and goes with the last.
func TestUninstallFrontAlone(t *testing.T) {
	o := host(t, "", nil)
	o.InFront, o.Runtimes = true, []string{"runc"}
	mustRun(t, Install, o)
	o.InFront = false
	r := mustRun(t, Uninstall, o)
	if len(r.Notes) != 1 || r.Notes[0] != testScript+" stays: "+frontPlace+" needs it" {
		t.Errorf("%q", r.Notes)
	}
	o.InFront, o.Runtimes, o.DryRun = true, nil, true
	before := state(t, o.Root)
	if got := actions(mustRun(t, Uninstall, o)); got != "criu:removed: "+Name+":removed:" {
		t.Errorf("dry run: %s", got)
	}
	wantState(t, "dry run", o.Root, before)
	o.DryRun = false
	mustRun(t, Uninstall, o)
	wantState(t, "uninstalled", o.Root, map[string]string{})
}

// A directory that users can write is no place for what root runs as criu.
func TestFrontDirIsRoots(t *testing.T) {
	dir := filepath.Join(safe(t), "sbin")
	if err := onlyRootDir(filepath.Join(dir, "made", "later")); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o775); err != nil {
		t.Fatal(err)
	}
	if err := onlyRootDir(filepath.Join(dir, "made", "later")); !errors.Is(err, ErrWritable) || !strings.Contains(err.Error(), "its mode is 0775") {
		t.Errorf("%v", err)
	}
	if err := onlyRootDir(t.TempDir()); !errors.Is(err, ErrWritable) {
		t.Errorf("%v", err)
	}
}

func TestCheckFront(t *testing.T) {
	const first, inPath = "/opt/first:/usr/sbin", "/usr/sbin"
	remedy := "none needed if checkpoints are quick enough; else ipc-cr install --in-front"
	in := map[string]string{frontPlace: testBinary, testScript: "ipc-cr"}
	hook := Hook{Runtime: "runc", InForce: true, File: RuncFile, Line: 1, Script: testScript}
	other := Hook{Runtime: "runc", InForce: true, File: RuncFile, Line: 1, Script: "/opt/" + Name}
	services := Front{Of: "services", Path: ServicesPath, InFront: true, Place: frontPlace, CRIU: "/usr/sbin/criu"}
	flawed := func(detail, remedy string) Front {
		f := services
		f.Detail, f.Remedy = detail, remedy
		return f
	}
	for name, c := range map[string]struct {
		path  string
		links map[string]string
		hooks []Hook
		this  Front
		all   Front
	}{
		"not": {first, nil, nil,
			Front{Path: first, CRIU: "/usr/sbin/criu", Detail: "/usr/sbin/criu is found first", Remedy: remedy},
			Front{Of: "services", Path: ServicesPath, CRIU: "/usr/sbin/criu", Detail: "/usr/sbin/criu is found first", Remedy: remedy}},
		"for services": {inPath, in, []Hook{{Runtime: "runc", Detail: "not"}},
			Front{Path: inPath, CRIU: "/usr/sbin/criu", Detail: "/usr/sbin/criu is found first", Remedy: remedy}, services},
		"nothing behind": {"/usr/local/sbin", in, nil,
			Front{Path: "/usr/local/sbin", Place: frontPlace, Detail: frontPlace + " has no criu behind it on /usr/local/sbin", Remedy: "install criu, or ipc-cr uninstall --in-front"}, services},
		"no criu at all": {"/none", in, nil,
			Front{Path: "/none", Detail: "no criu is on /none", Remedy: "none needed where nothing is checkpointed; else install criu"}, services},
		"both ways": {"/none", in, []Hook{hook},
			Front{Path: "/none", Detail: "no criu is on /none", Remedy: "none needed where nothing is checkpointed; else install criu"},
			flawed("CRIU calls the hook for "+RuncFile+" too: the second call of an action does nothing", "")},
		"two hooks": {"/none", in, []Hook{hook, other},
			Front{Path: "/none", Detail: "no criu is on /none", Remedy: "none needed where nothing is checkpointed; else install criu"},
			flawed(RuncFile+" names another hook, /opt/"+Name+", than this one's "+testScript, "ipc-cr uninstall with the one, then ipc-cr install with the other")},
		"no script": {"/none", map[string]string{frontPlace: testBinary}, nil,
			Front{Path: "/none", Detail: "no criu is on /none", Remedy: "none needed where nothing is checkpointed; else install criu"},
			flawed("no "+Name+" beside "+testBinary+": every dump goes the ordinary way", "ipc-cr install --in-front")},
		"another ipc-cr": {"/none", map[string]string{frontPlace: "../../../opt/ipc-cr", "/opt/" + Name: "ipc-cr"}, nil,
			Front{Path: "/none", Detail: "no criu is on /none", Remedy: "none needed where nothing is checkpointed; else install criu"},
			flawed("it is the ipc-cr of another place, /opt/ipc-cr", "uninstall with that one, if this one is meant")},
	} {
		t.Run(name, func(t *testing.T) {
			j := asHost(t, safe(t), c.path, []string{"/usr/sbin/criu", "/opt/ipc-cr"}, c.links)
			c.this.Of = "this command"
			if diff := cmp.Diff([]Front{c.this, c.all}, j.root.checkFront(testBinary, c.hooks, nil)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if name == "for services" {
				program := filepath.Join(j.root.path, testBinary)
				if err := os.Chmod(program, 0o775); err != nil {
					t.Fatal(err)
				}
				if got := j.root.checkFront(testBinary, nil, nil)[1]; !got.InFront || !strings.Contains(got.Detail, "its mode is 0775") {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}
