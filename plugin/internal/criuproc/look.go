package criuproc

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take to be looked at. Its memory map and its
// command line are read under a lock that its own threads hold while they wait for
// a file system.
const patience = time.Second

// maxCommand in bytes is as much of a command line as is kept, and maxArguments as
// is read: a loader's own arguments come first.
const (
	maxCommand   = 200
	maxArguments = 4096
)

// looker looks at one process at a time.
type looker struct {
	proc   string // where procfs is mounted
	binary string // the name of ipc-cr's file
	script string
	place  place  // where the script's path leads here
	known  bool   // that place
	userNS string // the caller's user namespace
	mntNS  string // and its mount namespace,
	mounts string // with these mounts (proc_pid_mountinfo(5))
}

func newLooker(script Script) (*looker, error) {
	userNS, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return nil, err
	}
	mntNS, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	l := &looker{
		proc: "/proc", binary: filepath.Base(script.Binary), script: script.Path,
		userNS: userNS, mntNS: mntNS, mounts: string(mounts),
	}
	l.place, l.known = placeOf(l.mounts, script.Path)
	return l, nil
}

// mayDump reports whether a process has what criu needs. Neither file makes the
// reader wait for the process.
func (l *looker) mayDump(pid int) bool {
	link, err := os.Readlink(l.file(pid, "ns/user"))
	if err != nil || link != l.userNS {
		return false
	}
	status, err := os.ReadFile(l.file(pid, "status"))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		if digits, is := bytes.CutPrefix(line, []byte("CapPrm:")); is {
			permitted, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 64)
			return err == nil && permitted&(1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_CHECKPOINT_RESTORE) != 0
		}
	}
	return false
}

// seen is what a process is.
type seen struct {
	criu    bool
	command string
}

// look does not wait longer than that. What it has begun then ends with the
// process, or with this one: the lock is waited for in a way that a kill ends.
func (l *looker) look(pid int, noted bool) (found seen, inTime bool) {
	done := make(chan seen, 1)
	go func() {
		var s seen
		if s.criu = (noted || l.isCRIU(pid)) && l.reaches(pid); s.criu {
			s.command = l.commandOf(pid)
		}
		done <- s
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case found = <-done:
		return found, true
	case <-late.C:
		return seen{}, false
	}
}

// Is reports whether a process is a criu that could dump; false, too, if it cannot be
// looked at in time. Its memory map is asked for as well: criu may be started by a loader.
func Is(pid int) bool {
	l, err := newLooker(Script{Binary: "ipc-cr"})
	if err != nil || !l.mayDump(pid) {
		return false
	}
	done := make(chan bool, 1)
	go func() { done <- l.isCRIU(pid) }()
	select {
	case is := <-done:
		return is
	case <-time.After(patience):
		return false
	}
}

func (l *looker) isCRIU(pid int) bool {
	exe, err := os.Readlink(l.file(pid, "exe"))
	if err != nil { // a kernel thread, a zombie, or not ours to look at
		return false
	}
	switch baseOf(exe) {
	case name:
		return true
	case l.binary:
		argv0, _, _ := strings.Cut(l.readCommand(pid), "\x00")
		return filepath.Base(argv0) == name
	}
	return l.maps(pid)
}

// baseOf is the last part of a file's path; the file may have been replaced since.
func baseOf(path string) string { return filepath.Base(strings.TrimSuffix(path, " (deleted)")) }

// maps reports whether a process maps a file named criu.
func (l *looker) maps(pid int) bool {
	f, err := os.Open(l.file(pid, "maps"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 5*unix.PathMax) // seq_path escapes a byte with four
	for lines.Scan() {
		if _, path, is := strings.Cut(lines.Text(), "/"); is && baseOf("/"+path) == name {
			return true
		}
	}
	return false
}

// reaches reports whether the script's path leads a process to the same file as
// the caller; if that cannot be found out, it may.
func (l *looker) reaches(pid int) bool {
	if below, ok := l.chrootOf(pid); ok {
		theirs, known := placeOf(l.mounts, filepath.Join(below, l.script))
		return !l.known || !known || theirs == l.place
	}
	mounts, err := os.ReadFile(l.file(pid, "mountinfo"))
	if err != nil || !l.known {
		return true
	}
	theirs, known := placeOf(string(mounts), l.script)
	return !known || theirs == l.place
}

// chrootOf returns the root directory of a process that has another than the caller
// in the same mount namespace, of which its mountinfo does not tell (chroot(2)).
func (l *looker) chrootOf(pid int) (root string, ok bool) {
	mntNS, err := os.Readlink(l.file(pid, "ns/mnt"))
	if err != nil || mntNS != l.mntNS {
		return "", false
	}
	root, err = os.Readlink(l.file(pid, "root"))
	return root, err == nil && root != "/"
}

// commandOf is the command line in one line, from criu's own name on where that
// is an argument.
func (l *looker) commandOf(pid int) string {
	args := strings.Split(strings.TrimRight(l.readCommand(pid), "\x00"), "\x00")
	if at := slices.IndexFunc(args, func(arg string) bool { return filepath.Base(arg) == name }); at > 0 {
		args = args[at:]
	}
	command := strings.TrimSpace(strings.Join(args, " "))
	return command[:min(len(command), maxCommand)]
}

func (l *looker) readCommand(pid int) string {
	f, err := os.Open(l.file(pid, "cmdline"))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxArguments))
	return string(text)
}

func (l *looker) file(pid int, name string) string {
	return filepath.Join(l.proc, strconv.Itoa(pid), name)
}
