package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
)

// logProgram DIR TEXT ARG... is the command where the state directory, below DIR, has
// a log with that text, none if it is empty.
var logProgram = nstest.Program("ipc-cr-log", func(args []string) {
	os.Setenv("XDG_RUNTIME_DIR", args[0])
	if args[1] != "" {
		dir := filepath.Join(args[0], "ipc-cr")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			panic(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "log"), []byte(args[1]), 0o600); err != nil {
			panic(err)
		}
	}
	var errs strings.Builder
	status := run(context.Background(), append([]string{"log"}, args[2:]...), os.Stdout, &errs)
	fmt.Printf("stderr: %q\nexit status %d\n", errs.String(), status)
})

// runLog runs the command as the root of a user namespace, who has no right over the
// host's /run, and returns all that it gives.
func runLog(t *testing.T, text string, args ...string) string {
	t.Helper()
	return runLogIn(t, logPlace(t), text, args...)
}

func runLogIn(t *testing.T, dir, text string, args ...string) string {
	t.Helper()
	p := nstest.StartInUserNS(t, nil, logProgram, append([]string{dir, text}, args...)...)
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// logPlace is a directory that the root of a user namespace can search and write.
func logPlace(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ipc-cr-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// someEntries are a log's lines: two hostile, one cut off.
const someEntries = `
{"time":"2026-11-30T19:26:01.25Z","action":"pre-dump","container":"4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a","init_pid":4242,"criu_pid":4711,"images_dir":"/tmp/checkpoint","duration_ns":3000000,"done":["2 tasks of neighbours stopped"]}

{"time":"2026-11-30T19:26:01.5Z","action":"post-dump","container":"4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a","init_pid":4242,"criu_pid":4711,"images_dir":"/tmp/checkpoint","duration_ns":7000000,"done":["3 queues, 17 messages verified","2 tasks of neighbours frozen for 1.2ms"],"warnings":["the first","the second\u001b[2J\nof \u202etwo lines"]}

{"time":"2026-11-30T19:26:02Z","action":"post-setup-n
{"time":"2026-11-30T19:26:03Z","action":"post-setup-namespaces","init_pid":17,"error":"queue 0 (key 0x1): exists and differs"}

{"time":"2026-11-30T19:26:04Z","action":"warden","criu_pid":4711,"error":"cannot"}

{"time":"2026-11-30T19:26:05Z","action":"guard\u001b[31m","container":"\u0007","done":["put back"]}
`

func TestLog(t *testing.T) {
	nstest.Require(t, "userns")
	for name, args := range map[string]string{
		"log.txt": "", "log-last.txt": "-n 2", "log.json": "--json", "log-last.json": "--json --last 1",
	} {
		t.Run(name, func(t *testing.T) {
			out := runLog(t, someEntries, strings.Fields(args)...)
			wantGolden(t, name, out)
			if strings.ContainsAny(out, "\x1b\x07\u202e") {
				t.Errorf("not for a terminal: %q", out)
			}
		})
	}
	if all, more := runLog(t, someEntries), runLog(t, someEntries, "-n", "100"); all != more {
		t.Errorf("of more than there are: %q, want %q", more, all)
	}
}

// Nothing is logged: no failure, but said to a person.
func TestEmptyLog(t *testing.T) {
	nstest.Require(t, "userns")
	for _, text := range []string{"", "\n"} {
		if got, want := runLog(t, text), "stderr: \"ipc-cr: nothing is logged\\n\"\nexit status 0\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		out, _, _ := strings.Cut(runLog(t, text, "--json"), "stderr: \"\"\n")
		var log criuhook.Log
		if err := json.Unmarshal([]byte(out), &log); err != nil || log.Entries == nil || len(log.Entries) > 0 {
			t.Errorf("%q: %v", out, err)
		}
	}
}

// A directory that is not the caller's own is not believed.
func TestUntrustedLog(t *testing.T) {
	nstest.Require(t, "root")
	dir := logPlace(t)
	if err := os.Mkdir(filepath.Join(dir, "ipc-cr"), 0o755); err != nil { // the real root's
		t.Fatal(err)
	}
	out := runLogIn(t, dir, "")
	if !strings.HasPrefix(out, `stderr: "ipc-cr: log: state directory `+dir+`/ipc-cr: `) || !strings.HasSuffix(out, "exit status 1\n") {
		t.Errorf("%q", out)
	}
}

func TestLogUsage(t *testing.T) {
	for _, n := range []string{"0", "-1"} {
		runCommand(t, "log", "--last", n).wantError(t, exitUsage, "--last "+n+": a number above 0 is wanted")
	}
	runCommand(t, "log", "-n", "x").wantError(t, exitUsage, "invalid argument")
	runCommand(t, "log", "x").wantError(t, exitUsage, `unknown command "x"`)
}
