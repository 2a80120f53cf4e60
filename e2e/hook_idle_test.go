package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A confFile is one of the two files from which CRIU takes scripts under runc.
type confFile struct {
	name  string
	start func(t testing.TB, scripts ...string) *runcSubject
	times func(t testing.TB) int // CRIU runs each script at each action
}

var confFiles = []confFile{
	{"runc's", startWithRuncs, timesFromRuncs},
	{"default.conf", startWithDefaults, func(testing.TB) int { return 1 }},
}

// startWithRuncs starts a container with scripts in the file that runc names.
func startWithRuncs(t testing.TB, scripts ...string) *runcSubject {
	return startByRunc(t, newCrew(t), scriptConf(t, scripts...))
}

// startWithDefaults starts one with scripts in the default.conf of the home
// directory, which CRIU reads right after that of the machine.
func startWithDefaults(t testing.TB, scripts ...string) *runcSubject {
	t.Helper()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".criu"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(scriptConf(t, scripts...), filepath.Join(home, ".criu/default.conf")); err != nil {
		t.Fatal(err)
	}
	s := startByRunc(t, newCrew(t), scriptConf(t))
	s.through = []string{"env", "HOME=" + home}
	return s
}

// timesFromRuncs: CRIU before 4.2 reads that file two times, which is what
// `ipc-cr install` goes by.
func timesFromRuncs(t testing.TB) int {
	t.Helper()
	out, err := exec.Command("criu", "--version").Output()
	var major, minor int
	if n, _ := fmt.Sscanf(string(out), "Version: %d.%d", &major, &minor); err != nil || n != 2 {
		t.Fatalf("criu --version: %v, %q", err, out)
	}
	if major < 4 || major == 4 && minor < 2 {
		return 2
	}
	return 1
}

func TestHowOftenCRIURunsScripts(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	for _, conf := range confFiles {
		t.Run(conf.name, func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			script, ran := filepath.Join(dir, "script"), filepath.Join(dir, "ran")
			writeFile(t, script, "#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >>"+ran+"\n")
			if err := os.Chmod(script, 0o755); err != nil {
				t.Fatal(err)
			}
			s := conf.start(t, script)
			mustSave(t, s)
			s.mustLoadThrough(t, s.through)
			text, err := os.ReadFile(ran)
			if err != nil {
				t.Fatal(err)
			}
			times := map[string]int{}
			for action := range strings.FieldsSeq(string(text)) {
				times[action]++
			}
			for _, action := range []string{"pre-dump", "post-dump", "pre-restore", "post-setup-namespaces", "post-resume"} {
				if times[action] != conf.times(t) {
					t.Errorf("%s: %d times, want %d", action, times[action], conf.times(t))
				}
			}
		})
	}
}

// TestHookWithoutQueues says what the hook costs a container that has none.
func TestHookWithoutQueues(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	for _, conf := range confFiles {
		t.Run(conf.name, func(t *testing.T) {
			leavesNothing(t)
			pair := []*runcSubject{conf.start(t, hookPath(t)), conf.start(t)}
			var saves, loads [2][]time.Duration // with the hook, and without
			for n := range rounds(t, 5) {
				for k := range pair {
					i := (n + k) % 2 // neither is always the first
					s := pair[i]
					saves[i] = append(saves[i], took(func() { mustSave(t, s) }))
					loads[i] = append(loads[i], took(func() { s.mustLoadThrough(t, s.through) }))
				}
			}
			t.Logf("checkpoint: %s", added(saves))
			t.Logf("restore: %s", added(loads))
			if found := queues(t, nsOf(t, pair[0])); len(found) > 0 {
				t.Errorf("%d queues out of nothing", len(found))
			}
		})
	}
}

func took(do func()) time.Duration {
	began := time.Now()
	do()
	return time.Since(began)
}

// added tells what the first adds to the second, round by round.
func added(of [2][]time.Duration) string {
	var more []time.Duration
	for n, with := range of[0] {
		more = append(more, with-of[1][n])
	}
	ms := func(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
	middle := func(list []time.Duration) time.Duration { return slices.Sorted(slices.Values(list))[len(list)/2] }
	return fmt.Sprintf("the hook adds %s at the median of %d rounds, %s at least; %s to the median (%s without), %s to the shortest (%s without)",
		ms(middle(more)), len(more), ms(slices.Min(more)), ms(middle(of[0])-middle(of[1])), ms(middle(of[1])),
		ms(slices.Min(of[0])-slices.Min(of[1])), ms(slices.Min(of[1])))
}
