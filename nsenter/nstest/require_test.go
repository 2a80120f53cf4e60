package nstest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// recorder is a test that notes how it ended.
type recorder struct {
	testing.TB
	fatal, skip string
}

func (r *recorder) Helper() {}

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

// The list is closed: other packages and the CI name these.
func TestRequirements(t *testing.T) {
	for _, word := range []string{"userns", "root", "criu", "runc", "crun", "podman", "bpf"} {
		check, known := requirements[word]
		if !known {
			t.Fatalf("%s is unknown", word)
		}
		t.Logf("%s: %v", word, check())
	}
	if len(requirements) != 7 {
		t.Errorf("%d requirements, want 7", len(requirements))
	}
}
