package freeze

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procfs reads /proc through one descriptor, with buffers of its own: a look at
// a task allocates nothing. It serves one goroutine at a time.
type procfs struct {
	fd    int
	path  []byte
	link  [64]byte
	pids  []byte // getdents of /proc
	tids  []byte // getdents of /proc/PID/task
	small [4096]byte
}

const direntsSize = 64 << 10

// pidsSize is little: what was listed is looked at at once, while it lives.
const pidsSize = 512

// openProc opens /proc and makes sure that its numbers are those that ptrace(2)
// takes from us.
func openProc() (*procfs, error) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	p := &procfs{fd: fd, pids: make([]byte, pidsSize), tids: make([]byte, direntsSize)}
	if err := checkOwnPID(fd); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func checkOwnPID(procfd int) error {
	var buf [32]byte
	n, err := unix.Readlinkat(procfd, "self", buf[:])
	if err != nil {
		return &os.PathError{Op: "readlink", Path: "/proc/self", Err: err}
	}
	if string(buf[:n]) != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("/proc is mounted for another pid namespace: it calls process %d %q", os.Getpid(), buf[:n])
	}
	return nil
}

func (p *procfs) close() { unix.Close(p.fd) }

// taskPath returns "TID/name" as a C string, valid until the next call.
// /proc/TID exists for every thread, listed or not, and tells of that thread.
func (p *procfs) taskPath(tid int, name string) *byte {
	p.path = strconv.AppendInt(p.path[:0], int64(tid), 10)
	p.path = append(p.path, '/')
	p.path = append(p.path, name...)
	p.path = append(p.path, 0)
	return &p.path[0]
}

// ipcLink reads a task's ns/ipc link, which is valid until the next call.
func (p *procfs) ipcLink(tid int) ([]byte, error) {
	path := p.taskPath(tid, "ns/ipc")
	n, _, e := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(p.fd), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&p.link[0])), uintptr(len(p.link)), 0, 0)
	if e != 0 {
		return nil, e
	}
	return p.link[:n], nil
}

// threads returns the number of a process's threads: /proc/PID/task has as many
// links and two more (proc_task_getattr in fs/proc/base.c).
func (p *procfs) threads(pid int) int {
	var st unix.Statx_t
	path := p.taskPath(pid, "task")
	_, _, e := unix.RawSyscall6(unix.SYS_STATX, uintptr(p.fd), uintptr(unsafe.Pointer(path)), 0,
		unix.STATX_NLINK, uintptr(unsafe.Pointer(&st)), 0)
	if e != 0 {
		return 0
	}
	return int(st.Nlink) - 2
}

// process returns the process that a thread belongs to, the thread itself if it has
// ended.
func (p *procfs) process(tid int) int {
	if s, ok := p.status(tid); ok {
		return s.process
	}
	return tid
}

// lastPID returns the number that the kernel gave last in our pid namespace: each
// task there or in one below has one. 0 if it cannot be read. The last word of loadavg
// is the same, for kernels without CONFIG_CHECKPOINT_RESTORE.
func (p *procfs) lastPID() int {
	for _, name := range []string{"sys/kernel/ns_last_pid", "loadavg"} {
		if words := bytes.Fields(p.file(name)); len(words) > 0 {
			return number(words[len(words)-1])
		}
	}
	return 0
}

// openTask opens a file or directory of a task.
func (p *procfs) openTask(tid int, name string) (int, error) {
	for {
		path := p.taskPath(tid, name)
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(p.fd), uintptr(unsafe.Pointer(path)),
			unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		switch e {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, e
		}
	}
}

// read returns the first 4 KiB of a task's file, valid until the next call, and
// nothing if it cannot be read.
func (p *procfs) read(tid int, name string) []byte {
	fd, err := p.openTask(tid, name)
	if err != nil {
		return nil
	}
	return p.readAll(fd)
}

// file is read for a file of /proc itself, and nothing if something else is mounted
// over it: lxcfs makes up a loadavg.
func (p *procfs) file(name string) []byte {
	fd, err := unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		unix.Close(fd)
		return nil
	}
	return p.readAll(fd)
}

func (p *procfs) readAll(fd int) []byte {
	defer unix.Close(fd)
	n := 0
	for n < len(p.small) {
		m, err := unix.Read(fd, p.small[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m <= 0 {
			break
		}
		n += m
	}
	return p.small[:n]
}

// text is read for one-line files such as comm and wchan.
func (p *procfs) text(tid int, name string) string {
	return strings.TrimSuffix(string(p.read(tid, name)), "\n")
}

// ofThread names a file that /proc/TID has for the process as a whole, as the
// thread's own. The process's stat adds up all of its threads.
func ofThread(tid int, name string) string {
	return "task/" + strconv.Itoa(tid) + "/" + name
}

// state returns a task's state letter, see proc_pid_stat(5); 0 if it is gone.
func (p *procfs) state(tid int) byte {
	stat := p.read(tid, ofThread(tid, "stat"))
	i := bytes.LastIndexByte(stat, ')') // comm may hold anything, ')' too
	if i < 0 || i+2 >= len(stat) {
		return 0
	}
	return stat[i+2]
}

// status is what proc_pid_status(5) says of a task.
type status struct {
	state                   byte
	process, parent, tracer int // tracer is a thread's id, 0 if there is none
}

// dead reports whether the task can neither run nor be traced any more.
func (s status) dead() bool { return s.state == 'Z' || s.state == 'X' }

// status returns false if the task is gone.
func (p *procfs) status(tid int) (status, bool) {
	var s status
	for line := range bytes.Lines(p.read(tid, "status")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(name) {
		case "State":
			s.state = value[0]
		case "Tgid":
			s.process = number(value)
		case "PPid":
			s.parent = number(value)
		case "TracerPid":
			s.tracer = number(value)
		}
	}
	return s, s.process != 0
}

// lives reports whether a process has a task that has not ended.
func (p *procfs) lives(pid int) bool {
	s, ok := p.status(pid)
	return ok && (!s.dead() || p.threads(pid) > 1)
}

func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return n
}

// task describes a task for people.
func (p *procfs) task(pid, tid int, why string) Task {
	return Task{PID: pid, TID: tid, Name: p.text(tid, "comm"), Why: why}
}
