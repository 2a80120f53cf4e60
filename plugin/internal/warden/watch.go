package warden

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// watcher waits for a process's end through a pidfd (pidfd_open(2)), which is
// readable from then on, reaped or not.
type watcher struct{ fd int }

// watch watches a process. One that is dead already has ended.
func watch(p state.Process) watcher {
	w, err := openWatcher(p)
	if err != nil {
		return watcher{-1}
	}
	return w
}

// openWatcher fails with ESRCH if the process is dead.
func openWatcher(p state.Process) (watcher, error) {
	if p.Foreign() {
		return watcher{-1}, fmt.Errorf("%s is of another pid namespace: %w", p, unix.ESRCH)
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return watcher{-1}, fmt.Errorf("pidfd_open %s: %w", p, err)
	}
	if !p.Alive() { // asked after the open, so that it is the one that is open
		_ = unix.Close(fd)
		return watcher{-1}, fmt.Errorf("%s has ended: %w", p, unix.ESRCH)
	}
	return watcher{fd}, nil
}

// within waits so long for the end; forever if d is negative.
func (w watcher) within(d time.Duration) bool {
	if w.fd < 0 {
		return true
	}
	for deadline := time.Now().Add(d); ; {
		timeout := -1
		if d >= 0 {
			timeout = int(max(time.Until(deadline), 0).Milliseconds())
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, timeout)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

func (w watcher) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
}
