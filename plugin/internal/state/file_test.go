package state

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestFiles(t *testing.T) {
	dir := openTemp(t)
	steps := []struct {
		what string
		err  error
		want error
	}{
		{"create", dir.Create("a", []byte("one")), nil},
		{"create again", dir.Create("a", []byte("two")), unix.EEXIST},
		{"replace", dir.Replace("b", []byte("three")), nil},
		{"replace again", dir.Replace("b", []byte("four")), nil},
		{"too large", dir.Create("c", make([]byte, MaxFile+1)), unix.EFBIG},
		{"largest", dir.Create("c", make([]byte, MaxFile)), nil},
		{"remove", dir.Remove("c"), nil},
		{"remove again", dir.Remove("c"), nil},
	}
	for _, step := range steps {
		if !errors.Is(step.err, step.want) {
			t.Errorf("%s: %v, want %v", step.what, step.err, step.want)
		}
	}
	for name, want := range map[string]string{"a": "one", "b": "four"} {
		if got, err := dir.Read(name); err != nil || string(got) != want {
			t.Errorf("read %s: %q, %v, want %q", name, got, err, want)
		}
		info, err := os.Lstat(dir.Join(name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info, err)
		}
	}
	names, err := dir.Names()
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("names %v, %v: want a, b", names, err)
	}
	if left, _ := os.ReadDir(dir.Path()); len(left) != 2 {
		t.Errorf("%v is left", left)
	}
}

func TestCreateHasOneWinner(t *testing.T) {
	dir := openTemp(t)
	var winners sync.Map
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			switch err := dir.Create("a", fmt.Appendf(nil, "%d", i)); {
			case err == nil:
				winners.Store(fmt.Sprint(i), true)
			case !errors.Is(err, unix.EEXIST):
				t.Error(err)
			}
		})
	}
	group.Wait()
	content, err := dir.Read("a")
	if _, won := winners.LoadAndDelete(string(content)); err != nil || !won {
		t.Errorf("%q is in the file (%v) and did not win", content, err)
	}
	winners.Range(func(who, _ any) bool { t.Errorf("%v won too", who); return true })
}

func TestReadRefusesPlantedFiles(t *testing.T) {
	tests := []struct {
		name  string
		root  bool
		want  error
		plant func(path string) error
	}{
		{"link", false, ErrUntrusted, func(path string) error { return os.Symlink("/etc/hostname", path) }},
		{"fifo", false, ErrUntrusted, func(path string) error { return unix.Mkfifo(path, 0o600) }},
		{"directory", false, ErrUntrusted, func(path string) error { return os.Mkdir(path, 0o700) }},
		{"another user's", true, ErrUntrusted, func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Chown(path, noRoot, noRoot))
		}},
		{"endless", false, unix.EFBIG, func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
		}},
		{"missing", false, unix.ENOENT, func(string) error { return nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.root {
				nstest.Require(t, "root")
			}
			dir := openTemp(t)
			if err := test.plant(dir.Join("a")); err != nil {
				t.Fatal(err)
			}
			_, err := dir.Read("a")
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), dir.Join("a")) {
				t.Errorf("read: %v, want %v and the path", err, test.want)
			}
		})
	}
}

func TestNamesRemovesWhatTheDeadLeft(t *testing.T) {
	dir := openTemp(t)
	if err := dir.Create("note", nil); err != nil {
		t.Fatal(err)
	}
	dead := dir.Join(tempPrefix + "dead")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	living, err := dir.writeTemp([]byte("more"))
	if err != nil {
		t.Fatal(err)
	}
	defer living.Release()
	if names, err := dir.Names(); err != nil || !slices.Equal(names, []string{"note"}) {
		t.Errorf("names %v, %v: want the note", names, err)
	}
	left, _ := filepath.Glob(dir.Join(tempPrefix + "*"))
	if !slices.Equal(left, []string{dir.Join(living.name)}) {
		t.Errorf("temporaries left: %v, want %s", left, living.name)
	}
}

var writeProgram = nstest.Program("state.write", write)

// write PATH TIMES lists and writes a state directory, in a pid namespace of its
// own with a /proc to it, and says what failed.
func write(args []string) {
	times, err := strconv.Atoi(args[1])
	err = errors.Join(err, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	if err != nil {
		panic(err)
	}
	dir, err := Open(args[0])
	if err != nil {
		panic(err)
	}
	failed, last := 0, error(nil)
	for range times {
		_, listed := dir.Names()
		if err := errors.Join(listed, dir.Replace("note", []byte("content"))); err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 {
		fmt.Printf("%d of %d writes failed: %v", failed, times, last)
	}
}

// /run may be shared by pid namespaces, which see nothing of each other's
// processes.
func TestWritersInOtherPIDNamespaces(t *testing.T) {
	nstest.Require(t, "root")
	dir := openTemp(t)
	var writers sync.WaitGroup
	for range 3 {
		leash, end, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer end.Close()
		cmd := exec.Command("/proc/self/exe", dir.Path(), "3000")
		cmd.Env = append(os.Environ(), "IPC_CR_NSTEST_PROGRAM="+writeProgram)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
		cmd.ExtraFiles = []*os.File{leash}
		time.Sleep(20 * time.Millisecond) // all have pid 1: they differ in when they began, to a hundredth
		writers.Go(func() {
			if out, err := cmd.Output(); err != nil || len(out) > 0 {
				t.Errorf("%s %v", out, err)
			}
		})
	}
	writers.Wait()
	if left, _ := os.ReadDir(dir.Path()); len(left) != 1 {
		t.Errorf("%v is left, want the note", left)
	}
}

func TestClaim(t *testing.T) {
	dir := openTemp(t)
	if err := dir.Create("a", []byte("one")); err != nil {
		t.Fatal(err)
	}
	first, err := dir.Claim("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Claim("a"); !errors.Is(err, ErrBusy) {
		t.Errorf("second claim: %v, want ErrBusy", err)
	}
	if content, err := first.Read(); err != nil || string(content) != "one" {
		t.Errorf("read %q, %v", content, err)
	}
	first.Release()
	second, err := dir.Claim("a")
	if err != nil {
		t.Fatalf("claim after release: %v", err)
	}
	defer second.Release()
	if err := second.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Claim("a"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("claim after remove: %v, want ENOENT", err)
	}
}

// A file that was removed, and perhaps made anew, between open and lock is not
// the one to work on.
func TestClaimOfAReplacedFile(t *testing.T) {
	dir := openTemp(t)
	if err := dir.Create("a", []byte("old")); err != nil {
		t.Fatal(err)
	}
	opened, err := dir.open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if err := dir.Replace("a", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := dir.lock(opened, "a"); !errors.Is(err, ErrBusy) {
		t.Errorf("lock of the old file: %v, want ErrBusy", err)
	}
	if err := dir.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := dir.lock(opened, "a"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("lock of a removed file: %v, want ENOENT", err)
	}
}

func TestProcess(t *testing.T) {
	self, err := Self()
	if err != nil || self.PID != os.Getpid() || !self.Alive() || self.Foreign() {
		t.Errorf("self: %+v, %v, alive %v, foreign %v", self, err, self.Alive(), self.Foreign())
	}
	reused, elsewhere := self, self
	reused.Start--
	elsewhere.PIDNamespace++
	if reused.Alive() || !elsewhere.Foreign() {
		t.Errorf("reused pid alive %v, other pid namespace foreign %v", reused.Alive(), elsewhere.Foreign())
	}
	if (Process{}).Alive() || (Process{}).Foreign() {
		t.Error("nobody is alive or foreign")
	}
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, err := Lookup(cmd.Process.Pid)
	if err != nil || !child.Alive() {
		t.Errorf("child: %+v, %v, alive %v", child, err, child.Alive())
	}
	in.Close()
	if err := unix.Waitid(unix.P_PID, child.PID, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if child.Alive() {
		t.Error("a zombie is alive")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if child.Alive() {
		t.Error("a reaped process is alive")
	}
	if _, err := Lookup(child.PID); !errors.Is(err, unix.ENOENT) {
		t.Errorf("lookup of a reaped process: %v, want ENOENT", err)
	}
}
