package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
)

var update = flag.Bool("update", false, "write the golden files anew")

// wantGolden compares with testdata/NAME.
func wantGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

var variable = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`ipc:\[\d+\]`), "ipc:[INODE]"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ms|µs|s)\b`), "TIME"},
	{regexp.MustCompile(`\b\d+ tasks? frozen`), "N tasks frozen"},       // the runtime's threads are as many as it likes
	{regexp.MustCompile(`  \d+ tasks? could not be looked at.*\n`), ""}, // a machine may have some
}

// fixed replaces what is different in every run.
func fixed(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "DIR")
	for _, v := range variable {
		text = v.what.ReplaceAllString(text, v.as)
	}
	return text
}

// fixedJSON does so in a document, by the names of fields. Those that depend on
// the kernel go.
func fixedJSON(t *testing.T, text, dir string) string {
	t.Helper()
	if !strings.HasPrefix(text, "{\n  \"") || !strings.HasSuffix(text, "\n}\n") {
		t.Errorf("not an indented object: %q", text)
	}
	var document map[string]any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	fixField(t, document)
	fixed, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(fixed), dir, "DIR") + "\n"
}

var (
	snakeCase   = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	variesInRun = map[string]bool{
		"duration_ns": true, "inode": true, "boot_id": true, "crc32c": true, "attempts": true, "unreadable": true,
	}
	variesInKernel = map[string]bool{"ns_id": true, "tasks": true, "unreadable": true}
)

func fixField(t *testing.T, value any) {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if !snakeCase.MatchString(name) {
				t.Errorf("field %q is not in snake_case", name)
			}
			switch {
			case variesInKernel[name]:
				delete(value, name)
			case variesInRun[name]:
				value[name] = "VARIES"
			}
			fixField(t, inner)
		}
		if value["name"] == "ipcns-var-1.img" {
			value["size"] = "VARIES" // the kernel's limits are of different lengths
		}
	case []any:
		for _, inner := range value {
			fixField(t, inner)
		}
	}
}

// example is a namespace with two queues.
func example(t *testing.T) (ns *nsenter.Namespace, path string) {
	t.Helper()
	ns, path = namespace(t)
	addQueue(t, ns, 0x1234, 3, 12)
	addQueue(t, ns, 0, 1, 0)
	return ns, path
}

func TestCheckpointReport(t *testing.T) {
	nstest.Require(t, "userns")
	_, ns := example(t)
	base := t.TempDir()
	args := []string{"checkpoint", "--ns", ns, "--images-dir"}
	// The first may have to wait for a second in which nothing was sent.
	mustRun(t, append(args, filepath.Join(base, "first"))...)
	dir := filepath.Join(base, "text")
	wantGolden(t, "checkpoint.txt", fixed(mustRun(t, append(args, dir)...), dir))
	dir = filepath.Join(base, "frozen")
	wantGolden(t, "checkpoint-freeze.txt", fixed(mustRun(t, append(args, dir, "--freeze", "--ns-id", "7")...), dir))
	dir = filepath.Join(base, "json")
	wantGolden(t, "checkpoint.json", fixedJSON(t, mustRun(t, append(args, dir, "--json")...), dir))
	dir = filepath.Join(base, "json-frozen")
	wantGolden(t, "checkpoint-freeze.json", fixedJSON(t, mustRun(t, append(args, dir, "--json", "--freeze")...), dir))
}

// Whoever was not stopped is told of.
func TestFrozenText(t *testing.T) {
	var text strings.Builder
	frozenText(&text, &plugin.Frozen{Unreadable: 3, Unseen: true, Loose: []string{"task \"x\""}})
	const want = `  0 tasks frozen for 0s
  3 tasks could not be looked at, and may live in the namespace or not
  tasks were born and ended too fast to be looked at
  not stopped: task "x"
`
	if text.String() != want {
		t.Errorf("%q, want %q", text.String(), want)
	}
}

func TestRestoreReport(t *testing.T) {
	nstest.Require(t, "userns")
	_, source := example(t)
	dir := filepath.Join(t.TempDir(), "images")
	mustRun(t, "checkpoint", "--ns", source, "-D", dir)

	target, path := namespace(t)
	args := []string{"restore", "--ns", path, "-D", dir}
	wantGolden(t, "restore-dry-run.txt", fixed(mustRun(t, append(args, "--dry-run")...), dir))
	if queues, _ := countMessages(t, target); queues != 0 {
		t.Errorf("the dry run made %d queues", queues)
	}
	wantGolden(t, "restore.txt", fixed(mustRun(t, args...), dir))
	wantGolden(t, "restore-again.txt", fixed(mustRun(t, args...), dir))
	if queues, messages := countMessages(t, target); queues != 2 || messages != 4 {
		t.Errorf("%d queues with %d messages, want 2 with 4", queues, messages)
	}
	_, path = namespace(t)
	wantGolden(t, "restore.json", fixedJSON(t, mustRun(t, "restore", "--ns", path, "-D", dir, "--json"), dir))
}

// Warnings go to stderr, and a conflict changes nothing.
func TestRestoreConflict(t *testing.T) {
	nstest.Require(t, "userns")
	_, source := example(t)
	dir := filepath.Join(t.TempDir(), "images")
	mustRun(t, "checkpoint", "--ns", source, "-D", dir)
	target, path := namespace(t)
	addQueue(t, target, 0x1234, 1, 5)
	args := []string{"restore", "--ns", path, "-D", dir}
	runCommand(t, args...).wantError(t, 1, "restore "+dir+" into ipc:[", "queue 0 (key 0x1234): exists and differs in number of messages", "nothing was changed", "--on-conflict adopt or replace")
	dry := runCommand(t, append(args, "--dry-run")...)
	result{status: dry.status, err: dry.err}.wantError(t, 1, "1 conflict: without --dry-run it would change nothing and fail")
	wantGolden(t, "restore-conflict-dry-run.txt", fixed(dry.out, dir))
	for _, c := range []struct {
		policy, warning string
		messages        int32
	}{
		{"adopt", "ipc-cr: warning: queue 0 (key 0x1234) adopted: differs from the image in number of messages\n", 2},
		{"replace", "ipc-cr: warning: queue 0 (key 0x1234) replaced: exists and differs in number of messages\n", 4},
	} {
		r := runCommand(t, append(args, "--on-conflict", c.policy)...)
		if r.status != 0 || r.err != c.warning {
			t.Errorf("%s: exit status %d, stderr %q, want %q", c.policy, r.status, r.err, c.warning)
		}
		if queues, messages := countMessages(t, target); queues != 2 || messages != c.messages {
			t.Errorf("%s: %d queues with %d messages, want 2 with %d", c.policy, queues, messages, c.messages)
		}
	}
}

// A raised limit is part of the report.
func TestLimitsInReport(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := namespace(t)
	addQueue(t, ns, 0x1234, 1, 5000)
	if err := ns.Run(func() error { return os.WriteFile("/proc/sys/kernel/msgmax", []byte("100"), 0o644) }); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "images")
	out := mustRun(t, "checkpoint", "--ns", path, "-D", dir)
	if want := "  kernel.msgmax was raised from 100 to 5000 for the moment, and put back\n"; !strings.Contains(out, want) {
		t.Errorf("%q does not say %q", out, want)
	}
}

// With --json stdout is the report and nothing else. A warning is in it, and on
// stderr for whoever looks on.
func TestWarningsBesideJSON(t *testing.T) {
	nstest.Require(t, "userns")
	_, source := example(t)
	_, target := namespace(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"checkpoint", "--ns", source}, {"restore", "--ns", target}} {
		r := runCommand(t, append(args, "-D", dir, "--json")...)
		var report struct {
			Warnings []string `json:"warnings"`
		}
		if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.status != 0 {
			t.Errorf("%q: exit status %d, %v: stdout %q, stderr %q", args, r.status, err, r.out, r.err)
			continue
		}
		want := "images directory " + dir + " can be written by everybody"
		if len(report.Warnings) != 1 || !strings.HasPrefix(report.Warnings[0], want) || r.err != "ipc-cr: warning: "+report.Warnings[0]+"\n" {
			t.Errorf("%q: warnings %q, stderr %q, want %q", args, report.Warnings, r.err, want)
		}
	}
}

// The fields of the reports are what scripts know them by: also those that only
// some runs have.
func TestReportFields(t *testing.T) {
	for name, report := range map[string]any{
		"checkpoint-fields.json": &plugin.CheckpointReport{},
		"restore-fields.json":    &plugin.RestoreReport{},
		"check-fields.json":      &checkReport{},
		"log-fields.json":        &criuhook.Log{},
	} {
		setAll(t, reflect.ValueOf(report).Elem())
		var out strings.Builder
		if err := (&output{out: &out, json: true}).print(report, nil); err != nil {
			t.Fatal(err)
		}
		wantGolden(t, name, out.String())
	}
}

// setAll gives a value and all that is in it something that is not left out.
func setAll(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 11, 30, 19, 26, 1, 250e6, time.UTC)))
			return
		}
		for i := range v.NumField() {
			setAll(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setAll(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setAll(t, v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		setAll(t, key)
		setAll(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Uint64:
		v.Set(reflect.ValueOf(7).Convert(v.Type()))
	default:
		t.Fatalf("a report has a %v", v.Type())
	}
}

// show is the same whatever the machine: the images are CRIU's and our own.
func TestShow(t *testing.T) {
	for name, args := range map[string]string{
		"show.txt":            "testdata/images",
		"show-messages.txt":   "testdata/images --messages",
		"show.json":           "testdata/images --json",
		"show-messages.json":  "testdata/images --json --messages",
		"show-criu.txt":       "../../images/testdata/criu/plain --messages",
		"show-criu.json":      "../../images/testdata/criu/plain --json",
		"show-file.txt":       "testdata/images/ipcns-msg-1.img",
		"show-file-vars.json": "testdata/images/ipcns-var-1.img --json",
		"show-none.json":      "../../images/testdata/criu/none --json",
		"show-warned.txt":     "testdata/warned",
		"show-warned.json":    "testdata/warned --json",
	} {
		t.Run(name, func(t *testing.T) {
			out := mustRun(t, append([]string{"show"}, strings.Fields(args)...)...)
			wantGolden(t, name, out)
			if strings.Contains(args, "--json") {
				var document map[string]any
				if err := json.Unmarshal([]byte(out), &document); err != nil {
					t.Fatal(err)
				}
				fixField(t, document)
			}
		})
	}
}

func TestShowFailures(t *testing.T) {
	empty := t.TempDir()
	for path, says := range map[string]string{
		"testdata/missing":  "no such file or directory",
		empty:               "no image of an IPC namespace",
		"testdata/show.txt": "show",
		"/dev/null":         "neither a directory nor a regular file",
	} {
		runCommand(t, "show", path).wantError(t, 1, "ipc-cr: show: ", path, says)
	}
}
