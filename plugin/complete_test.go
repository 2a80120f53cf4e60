package plugin_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// momentary are what two JSON files of one namespace need not have in common.
var momentary = regexp.MustCompile(`(?m)^  "(created|boottime_ns|method)": .*$`)

// The JSON file that completes CRIU's images is the one of our own checkpoint.
func TestCompleteIsCheckpoint(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	fill(t, ns, aQueue(3, 0x33, "a", "", "ccc"), aQueue(9, 0), aQueue(40, 0x44, string(make([]byte, 8000))))
	save(t, ns, dir)
	name := filepath.Join(dir, "ipc-cr-1.json")
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	report, err := plugin.Complete(t.Context(), plugin.CompleteOptions{Kinds: kinds, Namespace: ns, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(momentary.ReplaceAllString(string(want), ""), momentary.ReplaceAllString(string(got), "")); diff != "" {
		t.Errorf("-checkpoint +complete:\n%s", diff)
	}
	if report.Number != 1 || len(report.Objects) != 1 || report.Objects[0].Size != (plugin.Size{Objects: 3, Messages: 4, Bytes: 8004}) {
		t.Errorf("report %+v", report)
	}
	load(t, nstest.Fresh(t), dir, plugin.Fail)
}

// A difference is an error, or a warning.
func TestCompleteDiffers(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	fill(t, ns, aQueue(3, 0x33, "a"))
	save(t, ns, dir)
	within(t, ns, func(k kernel.Kernel) error { return k.Send(3, msgbuf(message{1, "b"})) })
	opt := plugin.CompleteOptions{Kinds: kinds, Namespace: ns, Dir: dir}
	if _, err := plugin.Complete(t.Context(), opt); !errors.Is(err, plugin.ErrDiffers) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ipc-cr-1.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the JSON file: %v", err)
	}
	opt.Lenient = true
	report, err := plugin.Complete(t.Context(), opt)
	if err != nil || len(report.Warnings) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

// What is older than the dump is not of it.
func TestCompleteSince(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	save(t, ns, dir)
	opt := plugin.CompleteOptions{Kinds: kinds, Namespace: ns, Dir: dir, Since: time.Now().Add(time.Hour)}
	if _, err := plugin.Complete(t.Context(), opt); !errors.Is(err, plugin.ErrNotDumped) {
		t.Errorf("got %v", err)
	}
}

func TestCount(t *testing.T) {
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(3, 0x33, "a", "bb"), aQueue(9, 0))
	if size, err := plugin.Count(ns, kinds); err != nil || size != (plugin.Size{Objects: 2, Messages: 2, Bytes: 3}) {
		t.Errorf("%+v, %v", size, err)
	}
}
