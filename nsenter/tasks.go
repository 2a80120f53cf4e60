package nsenter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Task is a process at one time of one boot: a pid alone may be another
// process a moment later, together with the start time it is not.
type Task struct {
	PID   int    `json:"pid"`        // in the pid namespace of the caller
	Start uint64 `json:"start_time"` // since boot, in clock ticks (proc_pid_stat(5), field 22)
}

// Tasks lists the processes of which any thread is in the namespace, the
// caller's own included, in the order of /proc. A process that cannot be
// looked at (EACCES; it needs CAP_SYS_PTRACE over others' processes) is counted
// in unreadable, unless another of its threads was found inside. Processes that
// end meanwhile are skipped; those that hidepid hides are not seen at all.
func Tasks(ns *Namespace) (tasks []Task, unreadable int, err error) {
	want := ns.Link()
	err = eachProcess(func(proc int, pid string) bool {
		in, err := processIn(proc, pid, want)
		if err != nil && !isGone(err) {
			unreadable++
		}
		if !in {
			return true
		}
		if task, err := taskIn(proc, pid, want); err == nil {
			tasks = append(tasks, task)
		}
		return true
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list the tasks of %s: %w", ns, err)
	}
	return tasks, unreadable, nil
}

// eachProcess calls visit with a descriptor of /proc and each pid, until visit
// returns false.
func eachProcess(visit func(proc int, pid string) bool) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	proc := int(dir.Fd())
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		if !visit(proc, name) {
			return nil
		}
	}
	return nil
}

// processIn reports whether a thread of the process has the link text want. The
// first thread's link and the number of threads answer for nearly all of them;
// only if there are more, and the first is elsewhere, each is asked.
func processIn(proc int, pid, want string) (bool, error) {
	in, err := linkIs(proc, pid, want)
	if in {
		return true, nil
	}
	// proc_task_getattr adds the number of threads to the directory's two links.
	var st unix.Stat_t
	statErr := unix.Fstatat(proc, pid+"/task", &st, unix.AT_SYMLINK_NOFOLLOW)
	if statErr != nil || st.Nlink <= 3 {
		return false, err
	}
	return threadIn(proc, pid, want)
}

func threadIn(proc int, pid, want string) (bool, error) {
	tids, err := readNames(proc, pid+"/task")
	if err != nil {
		return false, err
	}
	var refused error
	for _, tid := range tids {
		in, err := linkIs(proc, pid+"/task/"+tid, want)
		if in {
			return true, nil
		}
		if err != nil && !isGone(err) {
			refused = err
		}
	}
	return false, refused
}

// linkIs compares the text of the link of one task, a directory below proc.
func linkIs(proc int, task, want string) (bool, error) {
	var buf [64]byte
	n, err := unix.Readlinkat(proc, task+"/ns/ipc", buf[:])
	if err != nil {
		return false, linkError(proc, task, err)
	}
	return string(buf[:n]) == want, nil
}

// taskIn reads the start time of a process that was just seen inside. By now
// the pid may be another's: the descriptor of its directory stays with one
// process, which is asked again.
func taskIn(proc int, pid, want string) (Task, error) {
	number, err := strconv.Atoi(pid)
	if err != nil {
		return Task{}, err
	}
	dir, err := openFD(proc, pid, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return Task{}, err
	}
	defer unix.Close(dir)
	stat, err := readAt(dir, "stat")
	if err != nil {
		return Task{}, err
	}
	if in, err := processIn(dir, ".", want); !in {
		return Task{}, errors.Join(errLeft, err)
	}
	start, err := startTime(stat)
	return Task{PID: number, Start: start}, err
}

// readAt reads a whole file of /proc.
func readAt(dirfd int, path string) ([]byte, error) {
	fd, err := openFD(dirfd, path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd)
}

// readAll reads to the end of a file of /proc without os.File, which would ask
// the poller about each.
func readAll(fd int) ([]byte, error) {
	data := make([]byte, 0, 512)
	for {
		n := 0
		err := ignoringEINTR(func() (err error) {
			n, err = unix.Read(fd, data[len(data):cap(data)])
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return data, nil
		}
		data = data[:len(data)+n]
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

var errLeft = errors.New("the process has left the namespace")

var errStat = errors.New("stat of a process: no start time")

// startTime takes field 22 of proc_pid_stat(5). Field 2, the name, is in
// parentheses and chosen by the process: it may hold both blanks and
// parentheses, so the fields are counted from the last one.
func startTime(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errStat
	}
	const afterName = 22 - 3 // field 3 is the first after the name
	fields := bytes.Fields(stat[end+1:])
	if len(fields) <= afterName {
		return 0, errStat
	}
	start, err := strconv.ParseUint(string(fields[afterName]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errStat, err)
	}
	return start, nil
}
