package freeze

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// walk is one round over /proc.
type walk struct {
	proc  *procfs
	found func(pid, tid int, link []byte) error // link is valid only during the call
	born  func() int                            // the number that was given last, 0 if it is not known

	unreadable int  // tasks whose link is EACCES
	seen       bool // a task of the process at hand has a link
	inside     int  // calls of found for the process at hand that had a match
	ragged     bool // a listing of threads of a matching process may lack some
}

// run calls found for each task whose link can be read. Zombies have none.
func (w *walk) run(ctx context.Context) error {
	if _, err := unix.Seek(w.proc.fd, 0, unix.SEEK_SET); err != nil {
		return fmt.Errorf("rewind /proc: %w", err)
	}
	return eachNumber(w.proc.fd, w.proc.pids, func(pid int) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return w.process(pid)
	})
}

// looks is how often a living process is looked at of which no task was seen.
const looks = 10

// process looks again where it has seen nobody: in execve(2) a thread takes over
// the id of the first one (de_thread in fs/exec.c), and if it does so between our
// looks at both, neither is there. A process that goes on to have no links is in
// its exit, and uses no object any more.
func (w *walk) process(pid int) error {
	for range looks {
		w.seen = false
		if err := w.look(pid); err != nil || w.seen || !w.proc.lives(pid) {
			return err
		}
	}
	return nil
}

// look spares the usual process, which has one thread, the listing.
func (w *walk) look(pid int) error {
	w.inside = 0
	n := w.proc.threads(pid)
	if n == 1 {
		return w.task(pid, pid)
	}
	fd, err := w.proc.openTask(pid, "task")
	if err != nil {
		return nil // the process has ended
	}
	defer unix.Close(fd)
	listed := 0
	err = eachNumber(fd, w.proc.tids, func(tid int) error {
		listed++
		return w.task(pid, tid)
	})
	// A thread that ends in the middle of a getdents call ends the listing
	// (next_tid in fs/proc/base.c).
	if w.inside > 0 && listed < n {
		w.ragged = true
	}
	if ended(err) {
		return nil
	}
	return err
}

func (w *walk) task(pid, tid int) error {
	link, err := w.proc.ipcLink(tid)
	switch {
	case err == nil:
		w.seen = true
		return w.found(pid, tid, link)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		w.seen = true
		w.unreadable++
	}
	return nil
}

// How many task numbers births follows, and how often, before it leaves them to
// the next round: the tasks stand still meanwhile, and who starts others all the time
// may be somebody else.
const (
	mostBorn   = 1024
	mostChases = 50
)

// inBirth is how many tasks may have got a number, and not be in /proc yet, when the
// listing came by.
const inBirth = 8

// births looks at the tasks that were born since the kernel gave out the number
// last, which must be from before run. It reports whether it caught up with them: a
// moment at which nobody was born while it looked at the youngest. Then whoever lives
// has been seen: who was there before is in the listing, and who came later has one of
// the numbers. Without it a chain of tasks, each of which starts the next one and
// ends, could be between the listing and our looks at it forever.
//
// A number that somebody chose (clone3 with set_tid, which needs
// CAP_CHECKPOINT_RESTORE in our pid namespace) is not among them.
func (w *walk) births(last int) (caught bool, err error) {
	if last == 0 {
		return false, nil
	}
	first := last
	last = max(last-inBirth, 0)
	for range mostChases {
		now := w.born()
		if now == last {
			return true, nil
		}
		if now < first || now-first > mostBorn { // the numbers have begun anew, or we lag behind
			return false, nil
		}
		for tid := last + 1; tid <= now; tid++ {
			if err := w.newborn(tid, tid <= first); err != nil {
				return false, err
			}
		}
		last = now
	}
	return false, nil
}

// newborn looks at a task that may not have been listed.
func (w *walk) newborn(tid int, maybeListed bool) error {
	link, err := w.proc.ipcLink(tid)
	switch {
	case err == nil:
		return w.found(w.proc.process(tid), tid, link)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		if !maybeListed {
			w.unreadable++
		}
	}
	return nil
}

func ended(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

// Offsets in struct linux_dirent64 of include/linux/dirent.h.
const (
	direntReclen = 16
	direntName   = 19
)

// eachNumber lists a directory and calls visit for each name that is a number.
func eachNumber(fd int, buf []byte, visit func(n int) error) error {
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list /proc: getdents64: %w", err)
		}
		if n == 0 {
			return nil
		}
		if err := eachDirent(buf[:n], visit); err != nil {
			return err
		}
	}
}

func eachDirent(buf []byte, visit func(n int) error) error {
	for len(buf) > direntName {
		reclen := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
		if reclen <= direntName || reclen > len(buf) {
			return nil
		}
		if n := leadingNumber(buf[direntName:reclen]); n > 0 {
			if err := visit(n); err != nil {
				return err
			}
		}
		buf = buf[reclen:]
	}
	return nil
}

// leadingNumber reads a NUL-terminated name; 0 if it is not a number.
func leadingNumber(name []byte) int {
	n := 0
	for _, c := range name {
		switch {
		case c == 0:
			return n
		case c < '0' || c > '9' || n > 1<<30:
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return 0
}
