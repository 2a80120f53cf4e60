package warden

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// init makes the process a warden if it was started as one.
func init() {
	if len(os.Args) != 1 || os.Args[0] != processName || !invited() {
		return
	}
	keepWatch()
	os.Exit(0)
}

// invited tells a warden from a program of that name started by hand.
func invited() bool {
	kind, err := unix.GetsockoptInt(lineFD, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && kind == unix.AF_UNIX
}

// keepWatch is a warden's whole life.
func keepWatch() {
	// What ends the hook or CRIU must not end their warden: Ctrl-C does not
	// reach another session, a service manager's SIGTERM does.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTSTP, syscall.SIGPIPE)
	// Started through /proc/self/exe it would be called exe.
	_ = os.WriteFile("/proc/self/comm", []byte(processName), 0)
	line, err := unixConn(os.NewFile(lineFD, "starter"))
	if err != nil {
		return
	}
	p, err := takePost(line)
	// Whoever started it may be dead by now. CRIU is who counts.
	_ = sendLine(line, reply{Failure: newFailure(err)})
	_ = line.Close()
	if err != nil {
		return
	}
	go func() { p.criuEnd.within(-1); p.logEnd(p.finish()); p.leave() }()
	go p.listen()
	<-p.left
}

// post is what a warden stands by.
type post struct {
	dir      *state.Dir
	note     note
	criuEnd  watcher
	listener *net.UnixListener

	ctx    context.Context // ends when the end begins, with errEnding
	cancel context.CancelCauseFunc
	finish func() error // everything let go and put back, once
	leave  func()       // the process may exit, once
	left   chan struct{}

	asked  atomic.Bool   // to end: who asked is told how it went
	busy   chan struct{} // held by whoever uses what follows
	hold   *hold
	images *images
	last   eventlog.Entry // what the end did
}

// takePost does all that must be done before the warden can be found.
func takePost(line *net.UnixConn) (*post, error) {
	if err := closeInherited(); err != nil {
		return nil, err
	}
	var b birth
	if err := line.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	text, err := bufio.NewReader(line).ReadBytes('\n')
	if err == nil {
		err = decodeStrictly(text, &b)
	}
	if err != nil {
		return nil, fmt.Errorf("what it is to be: %w", late(err, "not said", answerTimeout))
	}
	p := newPost()
	if p.criuEnd, err = openWatcher(b.CRIU); err != nil {
		return nil, err
	}
	if p.dir, err = state.Open(b.StateDir); err != nil {
		return nil, err
	}
	self, err := state.Self()
	if err != nil {
		return nil, err
	}
	if p.note, err = newNote(b.CRIU, self); err != nil {
		return nil, err
	}
	return p, p.begin()
}

func newPost() *post {
	p := &post{left: make(chan struct{}), busy: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.finish = sync.OnceValue(p.end)
	p.leave = sync.OnceFunc(func() { close(p.left) })
	return p
}

// begin notes the warden, takes over what a killed one noted, and listens.
func (p *post) begin() error {
	before, err := p.takeNote()
	if err != nil {
		return err
	}
	if before != nil {
		p.images, err = p.adopt(before)
	}
	if err == nil {
		err = p.bind()
	}
	if err == nil || before != nil {
		return err // with images, the note is for the next one
	}
	return errors.Join(err, p.dir.Remove(noteName(p.note.CRIU)))
}

// takeNote writes this warden into CRIU's note. It returns what is set aside
// according to the one of a warden that was killed.
func (p *post) takeNote() (before *imagesNote, err error) {
	name := noteName(p.note.CRIU)
	content, err := p.note.encode()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(comingTimeout); ; {
		err := p.dir.Create(name, content)
		if err == nil || !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		before, err := p.succeed(name)
		if err == nil {
			return before, nil
		}
		if !errors.Is(err, state.ErrBusy) && !errors.Is(err, unix.ENOENT) || time.Now().After(deadline) {
			return nil, err
		}
		_ = pause(p.ctx, true)
	}
}

// succeed takes over a dead warden's note, which nobody else does meanwhile.
func (p *post) succeed(name string) (*imagesNote, error) {
	file, err := p.dir.Claim(name)
	if err != nil {
		return nil, err
	}
	defer file.Release()
	content, err := file.Read()
	if err != nil {
		return nil, err
	}
	n, err := parseNote(content)
	if err != nil {
		return nil, fmt.Errorf("note %s: %w: look at it, then remove it", p.dir.Join(name), err)
	}
	if !otherBoot(n.BootID) && !dead(n.Warden) {
		return nil, fmt.Errorf("%w: %s", errThere, n.Warden)
	}
	p.note.Images = n.Images
	return n.Images, p.writeNote()
}

func (p *post) writeNote() error {
	content, err := p.note.encode()
	if err != nil {
		return err
	}
	return p.dir.Replace(noteName(p.note.CRIU), content)
}

// bind makes the socket. One of that name is a dead warden's.
func (p *post) bind() error {
	name := socketName(p.note.CRIU)
	if err := p.dir.Remove(name); err != nil {
		return err
	}
	path := "/proc/self/fd/" + strconv.Itoa(p.dir.Fd()) + "/" + name // sun_path is short
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen at %s: %w", p.dir.Join(name), err)
	}
	listener.SetUnlinkOnClose(false)
	p.listener = listener
	return nil
}

// end is the warden's end but for the process's. What cannot be put back stays
// noted: the next command tries again, and has a voice.
func (p *post) end() error {
	p.cancel(errEnding)
	p.busy <- struct{}{} // forever
	var aside []string
	p.last, aside = p.beforeEnd()
	errs := []error{p.hold.drop(), p.putBack()}
	p.last.Done = p.undone(aside)
	if p.listener != nil {
		_ = p.listener.Close()
		errs = append(errs, p.dir.Remove(socketName(p.note.CRIU)))
	}
	if p.images != nil {
		return errors.Join(append(errs, p.images.turn.release())...)
	}
	return errors.Join(append(errs, p.dir.Remove(noteName(p.note.CRIU)))...)
}

// closeInherited closes what a program that uses this package left open over
// exec. The runtime's own descriptors are close-on-exec and stay.
func closeInherited() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the warden's descriptors: %w", err)
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= lineFD {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}
