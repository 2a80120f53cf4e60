package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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
	nstest.Require(t, "root") // whose state directory is known
	ns, path := namespace(t)
	lock := freezeLock(t, ns)
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // as one that stops the tasks has
		t.Fatal(err)
	}
	for _, args := range [][]string{{"checkpoint", "--freeze", "-D", filepath.Join(t.TempDir(), "images")}, {"restore", "-D", exampleImages(t)}} {
		opens := watchOpens(t, lock.Name())
		p := nstest.Start(t, nil, loudProgram, append(args, "--ns", path)...)
		eventually(t, "it tries for the lock again and again", func() bool { return opens() >= 3 })
		if err := unix.Kill(p.PID(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		status, out := runProcess(p)
		for _, says := range []string{"wait for process ", ", which stops the tasks of " + ns.Link(), ": interrupted by SIGTERM\n"} {
			if status != 1 || !strings.Contains(out, says) {
				t.Errorf("%q: exit status %d, stderr %q, want %q", args, status, out, says)
			}
		}
	}
}

// freezeLock makes the file of the lock on the tasks of a namespace, until the end
// of the test.
func freezeLock(t *testing.T, ns *nsenter.Namespace) *os.File {
	t.Helper()
	id, err := ns.Identity()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("freeze-%d.lock", id.ID)
	if id.ID == 0 {
		name = fmt.Sprintf("freeze-inode-%d.lock", ns.Inode())
	}
	file, err := os.OpenFile(filepath.Join("/run/ipc-cr", name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file.Name()); file.Close() })
	return file
}

// watchOpens returns what counts how often a file was opened since.
func watchOpens(t *testing.T, path string) (opens func() int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		_, err = unix.InotifyAddWatch(fd, path, unix.IN_OPEN)
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	return func() int {
		// Events that are equal and follow each other are one (inotify(7)): it is read often.
		var events [4096]byte
		if length, err := unix.Read(fd, events[:]); err == nil {
			n += length / unix.SizeofInotifyEvent
		}
		return n
	}
}

// Killed while the tasks are frozen, it leaves all of them running, and no file
// that passes for a checkpoint; what it leaves the next run removes.
func TestKilledWhileFrozen(t *testing.T) {
	nstest.Require(t, "userns")
	ns, path := slow(t)
	dir := filepath.Join(t.TempDir(), "images")
	p := copying(t, dir, "--ns", path, "--freeze")
	if n := tasksStopped(t, ns); n == 0 {
		t.Error("nobody is frozen")
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
// stopped, and nobody has it go on.
func TestFrozenForTooLong(t *testing.T) {
	nstest.Require(t, "userns", "long") // the ten seconds
	t.Parallel()
	nstest.Try(t, func() error { return stopIPCCR(t) })
}

// stopIPCCR has ipc-cr keep tasks stopped that it cannot let go itself. The error says
// that it took too long for what else the machine may have done.
func stopIPCCR(t *testing.T) error {
	t.Helper()
	ns, path := slow(t)
	dir := filepath.Join(t.TempDir(), "images")
	p := copying(t, dir, "--ns", path, "--freeze")
	began := time.Now()
	if err := unix.Kill(p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if tasksStopped(t, ns) == 0 {
		t.Error("nobody is frozen")
	}
	eventually(t, "everybody runs", func() bool { return tasksStopped(t, ns) == 0 })
	stood := time.Since(began)
	if stood < 9*time.Second {
		t.Errorf("everybody ran again after %v, want ten seconds", stood)
	}
	if status, out := runProcess(p); status != 1 || out != "" {
		t.Errorf("exit status %d, stdout %q", status, out)
	}
	wantNothingLeft(t, dir)
	if stood > 12*time.Second {
		return fmt.Errorf("everybody ran again after %v, want ten seconds", stood)
	}
	return nil
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
