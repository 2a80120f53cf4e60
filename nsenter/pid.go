package nsenter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenPID opens the IPC namespace of a process, seen as in the caller's pid
// namespace. If its first thread has ended, the namespace of another of its
// threads is taken. A process that dies, and whose pid is taken by another,
// while this runs gives an error, never the other one's namespace.
//
// It needs CAP_SYS_PTRACE over the process or its very credentials (ptrace(2),
// PTRACE_MODE_READ_FSCREDS), else EACCES; ESRCH if there is no such process.
// Needs Linux 5.3 (pidfd_open(2)).
func OpenPID(pid int) (*Namespace, error) {
	fd, err := openProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("open ipc namespace of process %d: %w", pid, err)
	}
	return adopt(fd, pid)
}

func openProcess(pid int) (int, error) {
	if pid <= 0 {
		return -1, unix.ESRCH
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, explainPidfd(pid, err)
	}
	defer unix.Close(pidfd)
	fd, openErr := openProcLink(pid)
	// The pid belonged to the pidfd's process when the pidfd was made. If it
	// still does, it did so all the time between, and the link was its link.
	if err := checkHolds(pidfd, pid); err != nil {
		if openErr == nil {
			unix.Close(fd)
		}
		return -1, err
	}
	return fd, openErr
}

// explainPidfd tells a thread's id from no process: pidfd_open(2) refuses the
// former with EINVAL, since Linux 6.9 with ENOENT.
func explainPidfd(pid int, err error) error {
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return fmt.Errorf("%d is the id of a thread, not of a process: %w", pid, unix.ESRCH)
}

// openProcLink opens the ns/ipc link of the process, or else of one of its
// threads: the link of a thread that has ended is ENOENT, also the first's.
func openProcLink(pid int) (int, error) {
	dir, err := openFD(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("/proc/%d (hidden by hidepid, or /proc is another pid namespace's): %w", pid, err)
	}
	defer unix.Close(dir)
	fd, err := openFD(dir, "ns/ipc", unix.O_RDONLY)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, explainOpen(err)
	}
	return openThreadLink(dir)
}

func openThreadLink(dir int) (int, error) {
	tids, err := readNames(dir, "task")
	if err != nil {
		return -1, err
	}
	for _, tid := range tids {
		fd, err := openFD(dir, "task/"+tid+"/ns/ipc", unix.O_RDONLY)
		if err == nil {
			return fd, nil
		}
		if err := linkError(dir, "task/"+tid, err); !isGone(err) {
			return -1, explainOpen(err)
		}
	}
	return -1, fmt.Errorf("all its threads have ended (a zombie): %w", unix.ESRCH)
}

// checkHolds asks /proc which pid the process behind pidfd has there. The
// kernel (fs/pidfs.c, pidfd_show_fdinfo) says -1 once it is reaped, and another
// number if this /proc shows another pid namespace than the caller's.
func checkHolds(pidfd, pid int) error {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return fmt.Errorf("read the state of the pidfd: %w", err)
	}
	shown, err := pidOfInfo(info)
	if err != nil {
		return err
	}
	if shown == -1 {
		return unix.ESRCH
	}
	if shown != pid {
		return fmt.Errorf("/proc shows it as pid %d: it is mounted for another pid namespace", shown)
	}
	return nil
}

func pidOfInfo(info []byte) (int, error) {
	for line := range bytes.Lines(info) {
		if value, ok := bytes.CutPrefix(line, []byte("Pid:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	return 0, errors.New("fdinfo of the pidfd has no line Pid")
}

// isGone reports whether a look at a task in /proc failed because it ended.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

// linkError corrects the error of a look at a task's ns link: the kernel says
// EACCES also of a task that has ended since the path was walked (fs/proc/
// namespaces.c, proc_ns_get_link). If the task is still there, it was denied.
func linkError(dirfd int, task string, err error) error {
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	if there := unix.Faccessat(dirfd, task, unix.F_OK, 0); there != nil {
		return there
	}
	return err
}

// readNames lists a directory below dirfd.
func readNames(dirfd int, path string) ([]string, error) {
	fd, err := openFD(dirfd, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.Readdirnames(-1)
}
