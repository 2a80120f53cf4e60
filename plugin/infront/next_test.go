package infront

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Past links to ourselves, directories, what cannot be executed and relative
// entries, to the next one; and with what has been here before, never in a circle.
func TestFindPlace(t *testing.T) {
	real := fakeCRIU(t, "#!/bin/sh\n")
	link, dir := newLink(t), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, Name), 0o755); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, Name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join([]string{".", "", dir, other, link.Path(os.Getenv("PATH"))}, ":"))
	p, err := findPlace(Name)
	if err != nil || p.next != real || p.link != link.Name() || len(p.passed) != 1 {
		t.Errorf("%+v, %v, want next %s, link %s", p, err, real, link.Name())
	}
	id, _, err := identify(real)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(real))
	t.Setenv(passedEnv, id.String())
	if p, err := findPlace(Name); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("what has been here: %+v, %v", p, err)
	}
	t.Setenv(passedEnv, strings.Join(slices.Repeat([]string{"1:2"}, maxPassed), " "))
	if p, err := findPlace(Name); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a circle: %+v, %v", p, err)
	}
}

func TestScriptLine(t *testing.T) {
	for path, fine := range map[string]bool{"/a/b": true, "/a b/c": true, "a/b": false, "/a#b": false, "/a\"b": false, "/a\nb": false} {
		if line, err := scriptLine(path); (err == nil) != fine {
			t.Errorf("%q: %q, %v", path, line, err)
		}
	}
}

// A Link of a process that was killed is removed by the next; one in use is not.
func TestSweepLinks(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	mine := newLink(t)
	dead := filepath.Join(os.TempDir(), linkPrefix+"0-4194304-1-5")
	if err := os.Mkdir(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	newLink(t)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
	if _, err := os.Stat(mine.Name()); err != nil {
		t.Error(err)
	}
}
