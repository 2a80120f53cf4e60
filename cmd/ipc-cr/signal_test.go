package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Copying so many messages takes more than a second: the kernel walks to each
// from the first.
const slowMessages = 12000

// slow is a namespace whose copy takes its time.
func slow(t *testing.T) (ns *nsenter.Namespace, path string) {
	t.Helper()
	ns, path = namespace(t)
	addQueue(t, ns, 0x1234, slowMessages, 1)
	return ns, path
}

// copying starts a checkpoint and waits until it copies.
func copying(t *testing.T, dir string, args ...string) *nstest.Process {
	t.Helper()
	return copyingAs(t, commandProgram, dir, args...)
}

func copyingAs(t *testing.T, program, dir string, args ...string) *nstest.Process {
	t.Helper()
	p := nstest.Start(t, nil, program, append([]string{"checkpoint", "--method", "copy", "-D", dir}, args...)...)
	temporary := filepath.Join(dir, images.FileName(images.MsgKind, 1)+".ipc-cr-tmp")
	eventually(t, "the copy has begun", func() bool {
		_, err := os.Stat(temporary)
		return err == nil
	})
	return p
}

// loudProgram is the command with stderr in the place of stdout as well.
var loudProgram = nstest.Program("ipc-cr-loud", func([]string) {
	if err := unix.Dup3(1, 2, 0); err != nil {
		panic(err)
	}
	main()
})

// A signal ends a checkpoint with exit status 1 and its name, and nothing is left.
func TestSignals(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := slow(t)
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		dir := filepath.Join(t.TempDir(), "images")
		p := copyingAs(t, loudProgram, dir, "--ns", path)
		if err := unix.Kill(p.PID(), signal); err != nil {
			t.Fatal(err)
		}
		said := regexp.MustCompile(`^ipc-cr: checkpoint ipc:\[\d+\]: queue 0 \(key 0x1234\): copy message \d+ of 12000: interrupted by ` + unix.SignalName(signal) + "\n$")
		if status, out := runProcess(p); status != 1 || !said.MatchString(out) {
			t.Errorf("%v: exit status %d, stderr %q", signal, status, out)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			wantNothingLeft(t, dir)
			t.Errorf("%v: the directory is left: %v", signal, err)
		}
	}
	if queues, messages := countMessages(t, ns); queues != 1 || messages != slowMessages {
		t.Errorf("%d queues with %d messages", queues, messages)
	}
}

// Whatever a command waits for, a signal ends the wait, and what it waited for is
// said.
func TestSignalDuringAWait(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := namespace(t)
	addQueue(t, ns, 0x1234, 1, 1)
	saved := filepath.Join(t.TempDir(), "images")
	mustRun(t, "checkpoint", "--ns", path, "-D", saved)
	lock, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // as one that stops the tasks has
		t.Fatal(err)
	}
	for _, args := range [][]string{{"checkpoint", "--freeze", "-D", filepath.Join(t.TempDir(), "images")}, {"restore", "-D", saved}} {
		p := nstest.Start(t, nil, loudProgram, append(args, "--ns", path)...)
		eventually(t, "it waits for the lock", func() bool { return opened(p.PID(), ns.Link()) })
		if err := unix.Kill(p.PID(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		status, out := runProcess(p)
		for _, says := range []string{"lock the ipc namespace: wait for process ", ", which stops the tasks of " + ns.Link(), ": interrupted by SIGTERM\n"} {
			if status != 1 || !strings.Contains(out, says) {
				t.Errorf("%q: exit status %d, stderr %q, want %q", args, status, out, says)
			}
		}
	}
}

// opened tells whether a process has a namespace's file open more than once: as the
// one to work on, and for its lock.
func opened(pid int, link string) bool {
	n := 0
	fds, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd/*"))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == link {
			n++
		}
	}
	return n > 1
}

// Killed while the tasks stand still, it leaves all of them running, and no file
// that passes for a checkpoint; what it leaves the next run removes.
func TestKilledWhileFrozen(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := slow(t)
	dir := filepath.Join(t.TempDir(), "images")
	p := copying(t, dir, "--ns", path, "--freeze")
	if n := tasksStopped(t, ns); n == 0 {
		t.Error("nobody stands still")
	}
	p.Kill()
	eventually(t, "all tasks run", func() bool { return tasksStopped(t, ns) == 0 })
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".ipc-cr-tmp") {
			t.Errorf("%s is left", entry.Name())
		}
	}
	runCommand(t, "restore", "--ns", path, "-D", dir).wantError(t, 1, dir, "no image of an IPC namespace")
	small, other := namespace(t)
	addQueue(t, small, 1, 1, 1)
	mustRun(t, "checkpoint", "--ns", other, "-D", dir)
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("%d files after the next checkpoint, want 3", len(entries))
	}
}

// Ctrl-Z does not stop it while it keeps tasks stopped.
func TestJobStopWhileFrozen(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := slow(t)
	p := copyingAs(t, jobProgram, t.TempDir(), "--ns", path, "--freeze")
	if err := unix.Kill(p.PID(), unix.SIGTSTP); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(20*time.Second, p.Kill)
	defer kill.Stop()
	if status, out := runProcess(p); status != 0 {
		t.Errorf("exit status %d: %s", status, out)
	}
	if n := tasksStopped(t, ns); n != 0 {
		t.Errorf("%d tasks are stopped", n)
	}
}

// tasksStopped counts the tasks of a namespace that are stopped or traced.
func tasksStopped(t *testing.T, ns *nsenter.Namespace) (n int) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if link, err := os.Readlink(dir + "/ns/ipc"); err != nil || link != ns.Link() {
			continue
		}
		status, _ := os.ReadFile(dir + "/status")
		if !strings.Contains(string(status), "\nTracerPid:\t0\n") && len(status) > 0 {
			n++
		}
	}
	return n
}

// After ten seconds the freeze ends, whatever took them: here ipc-cr itself is
// stopped for so long.
func TestFrozenForTooLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	nstest.Require(t, "userns")
	t.Parallel()
	ns, path := slow(t)
	dir := filepath.Join(t.TempDir(), "images")
	p := copying(t, dir, "--ns", path, "--freeze")
	began := time.Now()
	signal := func(s unix.Signal) {
		if err := unix.Kill(p.PID(), s); err != nil {
			t.Fatal(err)
		}
	}
	signal(unix.SIGSTOP)
	eventually(t, "ten seconds are over", func() bool { return time.Since(began) > 10*time.Second })
	if tasksStopped(t, ns) == 0 {
		t.Error("nobody stands still")
	}
	signal(unix.SIGCONT)
	if status, out := runProcess(p); status != 1 || out != "" {
		t.Errorf("exit status %d, stdout %q", status, out)
	}
	if n := tasksStopped(t, ns); n > 0 {
		t.Errorf("%d tasks stand still", n)
	}
	wantNothingLeft(t, dir)
}

var smallFilesProgram = nstest.Program("smallfiles", func([]string) {
	limit := unix.Rlimit{Cur: 100, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	main()
})

// The limit on the size of files is an error like a full disk, and no death by
// a signal.
func TestFileSizeLimit(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := namespace(t)
	addQueue(t, ns, 0x1234, 1, 200)
	dir := filepath.Join(t.TempDir(), "images")
	p := nstest.Start(t, nil, smallFilesProgram, "checkpoint", "--ns", path, "-D", dir)
	if status, out := runProcess(p); status != 1 || out != "" {
		t.Errorf("exit status %d, stdout %q", status, out)
	}
	wantNothingLeft(t, dir)
}
