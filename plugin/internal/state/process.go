package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Process names a process so that a later one with the same pid is not taken
// for it. The zero Process is nobody.
type Process struct {
	PID int `json:"pid"`
	// Start is the start time in clock ticks since boot, field 22 of
	// proc_pid_stat(5).
	Start uint64 `json:"start_time"`
	// PIDNamespace is the inode number of the pid namespace in which PID means
	// that process.
	PIDNamespace uint64 `json:"pid_namespace"`
}

// Self is the calling process.
var Self = sync.OnceValues(func() (Process, error) { return Lookup(os.Getpid()) })

// Lookup returns the Process with a pid of the caller's pid namespace. ENOENT
// if there is none.
func Lookup(pid int) (Process, error) {
	space, err := pidNamespace()
	if err != nil {
		return Process{}, err
	}
	stat, err := readStat(pid)
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, Start: stat.start, PIDNamespace: space}, nil
}

// Foreign says that the process was named in another pid namespace than the
// caller's, from which nothing can be said about it.
func (p Process) Foreign() bool {
	space, err := pidNamespace()
	return err != nil || p.PIDNamespace != 0 && p.PIDNamespace != space
}

// Alive says whether the process still runs. A zombie does not. What cannot be
// read counts as alive.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	stat, err := readStat(p.PID)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return false
	}
	return err != nil || stat.start == p.Start && stat.state != 'Z' && stat.state != 'X'
}

// Stopped reports whether the process is alive and does not go on by itself: it was
// stopped by a signal, or a debugger.
func (p Process) Stopped() bool {
	stat, err := readStat(p.PID)
	return err == nil && stat.start == p.Start && (stat.state == 'T' || stat.state == 't')
}

// String is for messages.
func (p Process) String() string { return "process " + strconv.Itoa(p.PID) }

var pidNamespace = sync.OnceValues(func() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("stat /proc/self/ns/pid: %w", err)
	}
	return st.Ino, nil
})

type procStat struct {
	state byte
	start uint64
}

// readStat reads /proc/PID/stat. The command name in it is the process's own
// choice and may hold spaces and parentheses: the fields are counted from the
// last one.
func readStat(pid int) (procStat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	content, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, err
	}
	fields := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
	const stateField, startField = 0, 19 // fields 3 and 22 of proc_pid_stat(5)
	if len(fields) <= startField {
		return procStat{}, fmt.Errorf("read %s: %d fields after the name", path, len(fields))
	}
	start, err := strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("read %s: start time: %w", path, err)
	}
	return procStat{state: fields[stateField][0], start: start}, nil
}
