package freeze

import (
	"errors"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracer that is stopped itself (SIGSTOP, a debugger, its cgroup's freezer) lets
// go of nobody: its tracees stay as they are until it goes on or ends. So while
// tasks are held two timers of the kernel run against this process. They are set
// anew as long as it is alive to do so; where the tasks may only be held for a
// limited time, that begins when it lets them go, which may take long on a machine
// that is very busy. One that comes to its end makes the process go on (SIGCONT); if
// that is not enough, the other one ends it (SIGKILL), and the kernel lets all tasks
// go.
const (
	// heartbeat is how often the timers are set anew.
	heartbeat = time.Second
	// heartStopped is how long the process may be unable to.
	heartStopped = 5 * time.Second
	// grace is how long it may take then to go on, or to begin to let go. A process that
	// is ended has more to lose than its tasks.
	grace = 3 * time.Second
)

// deadMan is the two timers. Its methods may be called from several goroutines.
type deadMan struct {
	mu         sync.Mutex
	wake, kill timer
	ended      bool
	quit       chan struct{} // closed when nobody sets them any more; nil without a heartbeat
}

// watchSelf starts the timers: for as long as this process lives and for limit at
// most, or without an end if limit is 0. On an error there are none.
func watchSelf(limit time.Duration) (*deadMan, error) {
	d := &deadMan{}
	var err error
	if d.wake, err = newTimer(unix.SIGCONT); err != nil {
		return nil, err
	}
	if d.kill, err = newTimer(unix.SIGKILL); err != nil {
		return nil, errors.Join(err, d.wake.remove())
	}
	if limit > 0 {
		err = d.set(limit)
	} else {
		err = d.begin()
	}
	if err != nil {
		return nil, errors.Join(err, d.end())
	}
	return d, nil
}

// begin begins to set the timers anew, again and again. A nil deadMan has none.
func (d *deadMan) begin() error {
	if d == nil {
		return nil
	}
	if err := d.set(heartStopped); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quit == nil && !d.ended {
		d.quit = make(chan struct{})
		go d.beat()
	}
	return nil
}

func (d *deadMan) beat() {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-d.quit:
			return
		case <-ticker.C:
			_ = d.set(heartStopped) // it worked before
		}
	}
}

func (d *deadMan) set(after time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil
	}
	return errors.Join(d.wake.set(after), d.kill.set(after+grace))
}

// end stops the timers, when all tasks are let go. A nil deadMan has none.
func (d *deadMan) end() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil
	}
	d.ended = true
	if d.quit != nil {
		close(d.quit)
	}
	return errors.Join(d.wake.remove(), d.kill.remove())
}

// timer is the id of a POSIX timer of this process (timer_create(2)). Unlike a
// timer of Go's it also comes to its end while the process is stopped.
type timer int32

// sigevent is struct sigevent of include/uapi/asm-generic/siginfo.h.
type sigevent struct {
	value  uintptr
	signo  int32
	notify int32 // 0: SIGEV_SIGNAL
	_      [48]byte
}

var _ [64]byte = [unsafe.Sizeof(sigevent{})]byte{}

// newTimer makes a timer that is not set. Its signal counts among those that are
// pending for the user (RLIMIT_SIGPENDING), whose other processes can use up the limit:
// root in a container is the host's root where it has no user namespace of its own. So
// the limit is raised for the moment, which needs CAP_SYS_RESOURCE.
func newTimer(signal unix.Signal) (timer, error) {
	id, e := createTimer(signal)
	if e == unix.EAGAIN {
		var was unix.Rlimit
		most := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if err := unix.Prlimit(0, unix.RLIMIT_SIGPENDING, &most, &was); err == nil {
			id, e = createTimer(signal)
			if err := unix.Prlimit(0, unix.RLIMIT_SIGPENDING, &was, nil); err != nil {
				return id, os.NewSyscallError("prlimit", err)
			}
		}
	}
	return id, failure("timer_create", e)
}

func createTimer(signal unix.Signal) (id timer, e unix.Errno) {
	event := sigevent{signo: int32(signal)}
	_, _, e = unix.RawSyscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id)))
	return id, e
}

func (t timer) set(after time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(after.Nanoseconds())}
	_, _, e := unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(t), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	return failure("timer_settime", e)
}

func (t timer) remove() error {
	_, _, e := unix.RawSyscall(unix.SYS_TIMER_DELETE, uintptr(t), 0, 0)
	return failure("timer_delete", e)
}
