package restoring

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestAnswerNames(t *testing.T) {
	criu := state.Process{PIDNamespace: 4026531836, PID: 4711, Start: 1 << 63}
	for name, action := range map[string]string{
		AnswerName(criu, "pre-restore"):           "pre-restore",
		AnswerName(criu, "post-setup-namespaces"): "post-setup-namespaces",
		FileName(criu, "-owed"):                   "owed", // is swept with the answers
	} {
		if got, of, ok := ParseAnswerName(name); !ok || got != criu || of != action {
			t.Errorf("%s: %+v, %q, %t", name, got, of, ok)
		}
	}
	if got, want := AnswerName(criu, "pre-dump"), "hook-4026531836-4711-9223372036854775808-pre-dump"; got != want {
		t.Errorf("%s, want %s: an older ipc-cr's is not found", got, want)
	}
}

// A name that ipc-cr has not written is nobody's answer, however near it comes.
func TestParseForeignNames(t *testing.T) {
	for _, name := range []string{
		"", "hook-", "hook-1-2-3", "hook-1-2-3-", "1-2-3-pre-dump", "warden-1-2-3-pre-dump", "Hook-1-2-3-pre-dump",
		"hook-01-2-3-pre-dump", "hook-1-+2-3-pre-dump", "hook- 1-2-3-pre-dump", "hook-1-0x2-3-pre-dump", "hook-1-2-3-pre dump",
		"hook-1-2-3-pre-dump\n", "hook-1-2-3--\x00 ", "hook--1-2-3-pre-dump", "hook-18446744073709551616-2-3-pre-dump",
		"hook-1-9223372036854775808-3-pre-dump",
	} {
		if criu, action, ok := ParseAnswerName(name); ok {
			t.Errorf("%q: %+v, %q", name, criu, action)
		}
	}
}

// shell is a process that stands for criu, with a child that runs its own program
// still and one that executes another.
type shell struct {
	id              state.Process
	maker, executes int
}

func startShell(t *testing.T) shell {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `(while :; do sleep 1000; done) & echo $!; sleep 1000 & echo $!; wait`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	read := func() int {
		lines.Scan()
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	s := shell{maker: read(), executes: read()}
	if s.id, err = state.Lookup(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ProgramOf(s.executes) == ProgramOf(s.id.PID); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second child executes nothing")
		}
	}
	return s
}

// A task is in the making while it runs the program of a criu that has begun a
// restore and not ended.
func TestMaking(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	dir, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := startShell(t)
	answer := func(criu state.Process, action string) {
		t.Helper()
		if err := dir.Create(AnswerName(criu, action), nil); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(when string, pid int, run Run, want bool) {
		t.Helper()
		if got, making := In(dir).Making(pid); making != want || making && got != run {
			t.Errorf("%s, process %d: %+v, %t, want %+v, %t", when, pid, got, making, run, want)
		}
	}
	none := Run{}
	answer(s.id, "pre-dump")
	wants("it dumps", s.maker, none, false)
	gone := s.id
	gone.Start++ // its pid was given again
	answer(gone, firstAction)
	wants("another began", s.maker, none, false)
	answer(s.id, firstAction)
	wants("it began", s.maker, Run{CRIU: s.id}, true)
	wants("it began", s.executes, none, false)
	wants("it began", s.id.PID, none, false)
	wants("it began", os.Getpid(), none, false)
	answer(s.id, turnAction)
	wants("it had its turn", s.maker, Run{CRIU: s.id, Answered: true}, true)
	if (*Runs)(nil).Any() || In(nil).Any() {
		t.Error("a run is found in no directory")
	}
}

// The zero Program is of nobody, also of two processes that could not be looked at.
func TestInTheMaking(t *testing.T) {
	s := startShell(t)
	const nobody = 1 << 30 // above the highest pid
	for _, test := range []struct {
		name      string
		pid, criu int
		program   Program
		want      bool
	}{
		{"the same program", s.maker, s.id.PID, ProgramOf(s.id.PID), true},
		{"another program", s.executes, s.id.PID, ProgramOf(s.id.PID), false},
		{"criu's is unknown", s.maker, s.id.PID, Program{}, false},
		{"neither is known", nobody, s.id.PID, ProgramOf(nobody), false},
	} {
		if got := InTheMaking(test.pid, test.criu, test.program); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

// What criu traces is criu's, whatever it executes.
func TestInTheMakingTraced(t *testing.T) {
	s := startShell(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(s.executes); err != nil {
		t.Fatal(err)
	}
	tracer := unix.Gettid()
	if !InTheMaking(s.executes, tracer, Program{}) || InTheMaking(s.executes, tracer+1, Program{}) {
		t.Error("traced: not its tracer's alone")
	}
	if text, err := os.ReadFile(procPath(s.executes, "status")); err != nil || !strings.Contains(string(text), "TracerPid:\t"+strconv.Itoa(tracer)+"\n") {
		t.Errorf("%v, %s", err, text)
	}
}
