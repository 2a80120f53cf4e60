package nstest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// recorder is a test that notes how it ended.
type recorder struct {
	testing.TB
	fatal, skip string
	failed      bool
	logs        []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(string, ...any) { r.failed = true }

func (r *recorder) Failed() bool { return r.failed }

func (r *recorder) Logf(format string, args ...any) {
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skip = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// require runs Require where criu is missing and userns is there.
func require(t *testing.T, demanded string, what ...string) *recorder {
	t.Setenv(RequireEnv, demanded)
	old := requirements
	t.Cleanup(func() { requirements = old })
	requirements = map[string]func() error{
		"userns": func() error { return nil },
		"criu":   func() error { return errors.New("not here") },
	}
	r := &recorder{TB: t}
	var test sync.WaitGroup
	test.Go(func() { Require(r, what...) })
	test.Wait()
	return r
}

func TestRequire(t *testing.T) {
	for _, c := range []struct {
		demanded    string
		what        []string
		fatal, skip string
	}{
		{"", []string{"userns"}, "", ""},
		{"", []string{"userns", "criu"}, "", "needs criu: not here"},
		{"userns", []string{"criu"}, "", "needs criu: not here"},
		{"userns,criu", []string{"criu"}, "criu is required by IPC_CR_REQUIRE: not here", ""},
		{"userns, criu", []string{"userns"}, "", ""},
		{"", []string{"docker"}, `unknown requirement "docker"`, ""},
		{"crui", []string{"userns"}, `unknown requirement "crui" in IPC_CR_REQUIRE`, ""},
	} {
		r := require(t, c.demanded, c.what...)
		if !strings.Contains(r.fatal, c.fatal) || (c.fatal == "") != (r.fatal == "") || r.skip != c.skip {
			t.Errorf("%q of %q: fatal %q, skip %q", c.what, c.demanded, r.fatal, r.skip)
		}
	}
}

// The list is closed: other packages name these, and nobody can look up or demand
// what is not told of. crun alone is not demanded in CI (CONTRIBUTING.md says why).
func TestRequirements(t *testing.T) {
	guide, ci := lines(t, "../../CONTRIBUTING.md", "| `"), lines(t, "../../.ci/run", "export "+RequireEnv+"=")
	for word, check := range requirements {
		t.Logf("%s: %v", word, check())
		if !strings.Contains(guide, "`"+word+"`") {
			t.Errorf("%s is not in the table of CONTRIBUTING.md", word)
		}
		demanded := slices.Contains(strings.FieldsFunc(ci, func(r rune) bool { return strings.ContainsRune(",}-= ", r) }), word)
		if demanded != (word != "crun") {
			t.Errorf("%s is demanded in .ci/run: %t", word, demanded)
		}
	}
	if want := 15; len(requirements) != want {
		t.Errorf("%d requirements, want %d", len(requirements), want)
	}
}

// lines returns the lines of a file that begin so.
func lines(t *testing.T, path, begin string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, begin) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "\n")
}
