package guard

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// init makes the process a guard if it was started as one.
func init() {
	if len(os.Args) != 1 || os.Args[0] != processName || !invited() {
		return
	}
	keepGuard()
	os.Exit(0)
}

// invited tells a guard from a program of that name started by hand.
func invited() bool {
	kind, err := unix.GetsockoptInt(lineFD, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && kind == unix.AF_UNIX
}

// keepGuard is a guard's whole life.
func keepGuard() {
	// What ends ipc-cr must not end its guard: Ctrl-C does not reach another
	// session, a service manager's SIGTERM does.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTSTP, syscall.SIGPIPE)
	// Started through /proc/self/exe it would be called exe.
	_ = os.WriteFile("/proc/self/comm", []byte(processName), 0)
	in := os.NewFile(lineFD, "parent")
	p := &post{}
	p.open()
	p.listen(in)
	if p.released || p.ns == nil {
		return
	}
	err := p.guarded.PutBack(openSpace(p.ns, p.guarded.Root))
	p.finish(err)
}

// post is what a guard stands by.
type post struct {
	ns       *nsenter.Namespace // nil if it cannot be opened
	trouble  error              // why not
	guarded  request
	released bool
}

// open gets hold of the namespace, and rid of everything else.
func (p *post) open() {
	if p.trouble = closeInherited(); p.trouble != nil {
		return
	}
	p.ns, p.trouble = nsenter.OpenPath("/proc/self/fd/" + strconv.Itoa(namespaceFD))
	_ = unix.Close(namespaceFD)
}

// listen answers the parent until it releases the guard or dies. Half a line
// is a parent that died while it wrote.
func (p *post) listen(in *os.File) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine+1)
	for lines.Scan() {
		var r request
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			return
		}
		if r.Done {
			p.released = true
			return
		}
		if send(in, reply{Error: p.take(r)}) != nil {
			return
		}
	}
}

// take takes over what is to be guarded and returns what is wrong, if anything.
func (p *post) take(r request) string {
	p.guarded = r
	if p.trouble != nil {
		return p.trouble.Error()
	}
	if err := p.guarded.reach(openSpace(p.ns, r.Root)); err != nil {
		return err.Error()
	}
	if r.Note == "" {
		return ""
	}
	dir, err := state.Open(r.StateDir)
	if err != nil {
		return err.Error()
	}
	_ = dir.Close()
	return ""
}

// finish removes the note, if everything is put back: else the next command tries
// again. Both are logged, for whoever wonders what became of the parent.
func (p *post) finish(err error) {
	var dir *state.Dir
	if p.guarded.Note != "" {
		opened, openErr := state.Open(p.guarded.StateDir)
		if openErr == nil {
			dir = opened
			defer dir.Close()
		}
	}
	if err == nil && dir != nil {
		err = dir.Remove(p.guarded.Note)
	}
	if p.guarded.empty() {
		return
	}
	logPutBack(dir, fmt.Sprintf("ipc-cr was killed: what it had changed in %s, and nobody else since, is put back (%s)", p.ns, p.guarded.Things), err)
}

// closeInherited closes what a program that uses this package left open over
// exec. The runtime's own descriptors are close-on-exec and stay.
func closeInherited() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the guard's descriptors: %w", err)
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= namespaceFD {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}
