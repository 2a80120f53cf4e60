package plugin_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// crowded is a namespace whose messages take MSG_COPY long enough.
func crowded(t *testing.T) *nsenter.Namespace {
	t.Helper()
	ns := nstest.Fresh(t)
	fill(t, ns, aQueue(1, 0x10, strings.Split(strings.Repeat("abcdefgh", 300), "")...), aQueue(2, 0x11, "x"))
	return ns
}

func withMethod(t *testing.T, ns *nsenter.Namespace, dir string, m plugin.Method) *plugin.CheckpointReport {
	t.Helper()
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Method: m})
	if err != nil {
		t.Fatal(err)
	}
	if m := manifestOf(t, dir).Method; m != string(report.Method) {
		t.Errorf("the JSON file says %q, the report %q", m, report.Method)
	}
	return report
}

// What is few is copied with MSG_COPY, what is many by a walk, and either as asked
// for; the images are the same.
func TestMethod(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	few, many := nstest.Fresh(t), crowded(t)
	fill(t, few, aQueue(1, 0x10, "a", "b"))
	for _, c := range []struct {
		ns     *nsenter.Namespace
		method plugin.Method
		want   plugin.Method
		why    string
	}{
		{few, "", plugin.MethodCopy, "too few messages"},
		{few, plugin.MethodCopy, plugin.MethodCopy, ""},
		{few, plugin.MethodBPF, plugin.MethodBPF, ""},
		{many, "", plugin.MethodBPF, ""},
		{many, plugin.MethodCopy, plugin.MethodCopy, ""},
		{many, plugin.MethodBPF, plugin.MethodBPF, ""},
	} {
		dir := t.TempDir()
		r := withMethod(t, c.ns, dir, c.method)
		if r.Method != c.want || !strings.Contains(r.WhyMethod, c.why) || (c.why == "") != (r.WhyMethod == "") || len(r.Warnings) > 0 {
			t.Errorf("%q: copied with %q because %q, %q", c.method, r.Method, r.WhyMethod, r.Warnings)
		}
		if got, want := readImage(t, dir), readImage(t, checkpointOf(t, c.ns)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: another image", c.method)
		}
	}
	_, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: few, Dir: t.TempDir(), Number: 1, Method: "fast"})
	wantFailure(t, err, `method "fast": want one of ["auto" "copy" "bpf"]`)
}

// Whether it is worth it to load the program is found out while the tasks run, also
// where one queue among many is long: they are frozen for the copy, not for that.
func TestMethodBeforeTheTasksAreStopped(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	several := make([]queue, 1)
	for id := range int32(100) {
		several = append(several, aQueue(id+2, id+0x11, "x"))
	}
	for name, c := range map[string]struct {
		messages int // of the long queue
		want     bool
	}{"a long one": {2400, true}, "none": {60, false}} {
		ns := nstest.Fresh(t)
		several[0] = aQueue(1, 0x10, slices.Repeat([]string{"a"}, c.messages)...)
		fill(t, ns, several...)
		nstest.Start(t, ns, idleProgram)
		loaded := false
		m := &meddler{surveying: func(kernel.Kernel) error { loaded = holdsProgram(t); return nil }}
		report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
			Kinds: m.kinds(), Namespace: ns, Dir: t.TempDir(), Number: 1, Freeze: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if used := report.Method == plugin.MethodBPF; loaded != c.want || used != c.want {
			t.Errorf("%s: loaded before the copy: %t, used: %t, want %t", name, loaded, used, c.want)
		}
	}
}

// holdsProgram reports whether this process has a BPF program.
func holdsProgram(t *testing.T) bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		return err == nil && to == "anon_inode:bpf-prog"
	})
}

func checkpointOf(t *testing.T, ns *nsenter.Namespace) string {
	t.Helper()
	dir := t.TempDir()
	withMethod(t, ns, dir, plugin.MethodCopy)
	return dir
}

// Where there is no BPF, MSG_COPY does it, and says why.
func TestMethodRefused(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	ns := crowded(t)
	p := nstest.Start(t, ns, idleProgram)
	want := readImage(t, checkpointOf(t, ns))
	for name, op := range map[string]operation{
		"seccomp":      {NoBPF: true},
		"capabilities": {Without: []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}},
	} {
		for _, method := range []plugin.Method{plugin.MethodAuto, plugin.MethodBPF} {
			op.Dir, op.PID, op.Method, op.Inside = t.TempDir(), p.PID(), method, ns
			if err := op.result(t); err != nil {
				t.Errorf("%s, %q: %v", name, method, err)
				continue
			}
			if m := manifestOf(t, op.Dir).Method; m != string(plugin.MethodCopy) {
				t.Errorf("%s, %q: copied with %q", name, method, m)
			}
			if got := readImage(t, op.Dir); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s, %q: another image", name, method)
			}
		}
	}
}

// A copy that cannot be relied on is thrown away, and made again with MSG_COPY.
func TestMethodThrownAway(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	ns, dir := crowded(t), t.TempDir()
	m := &meddler{copying: func(kernel.Kernel) error { return fmt.Errorf("queue 1: %w", kind.ErrWalk) }}
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: m.kinds(), Namespace: ns, Dir: dir, Number: 1, Freeze: true, Method: plugin.MethodBPF,
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Method != plugin.MethodCopy || !strings.Contains(report.WhyMethod, "thrown away: queue 1") || len(report.Warnings) != 1 {
		t.Errorf("copied with %q because %q, %q", report.Method, report.WhyMethod, report.Warnings)
	}
	if got, want := readImage(t, dir), readImage(t, checkpointOf(t, ns)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("another image")
	}
}

// A queue that is in use is no proof against the walk, even where its numbers are
// what they were: the next attempt walks again.
func TestMethodNotToBlame(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	m := &meddler{copying: func(kernel.Kernel) error { return fmt.Errorf("queue 1: %w", kind.ErrWalk) }}
	m.surveying = func(k kernel.Kernel) error { return k.Send(2, msgbuf(message{3, "x"})) }
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: m.kinds(), Namespace: crowded(t), Dir: t.TempDir(), Number: 1, Method: plugin.MethodBPF,
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Method != plugin.MethodBPF || len(report.Warnings) > 0 || report.Attempts != 2 {
		t.Errorf("copied with %q, %q, in %d attempts", report.Method, report.Warnings, report.Attempts)
	}
}

// Whichever attempt shows that the walk cannot be relied on, their number is
// bounded.
func TestMethodThrownAwayLast(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	m, calls := &meddler{}, 0
	var fails func(kernel.Kernel) error
	fails = func(kernel.Kernel) error {
		m.copying = fails
		if calls++; calls == 5 {
			return fmt.Errorf("queue 1: %w", kind.ErrWalk)
		}
		return fmt.Errorf("queue 1: %w", kind.ErrChanged)
	}
	m.copying = fails
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{
		Kinds: m.kinds(), Namespace: crowded(t), Dir: t.TempDir(), Number: 1, Method: plugin.MethodBPF,
	})
	wantFailure(t, err, "5 times")
	if calls != 6 {
		t.Errorf("copied %d times, want 5 and once more", calls)
	}
}
