package warden

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// What a request asks for.
const (
	doPing  = "ping"
	doHold  = "hold" // with the namespace's descriptor
	doLet   = "let"
	doAside = "set aside" // with the directory's descriptor
	doEnd   = "end"
)

// request is the one line that a hook process sends over a connection. The
// connection's end before the answer means that nobody waits for it any more.
type request struct {
	Do       string        `json:"do"`
	Wait     time.Duration `json:"wait,omitempty"` // for a turn
	Init     int           `json:"init,omitempty"`
	Limit    time.Duration `json:"limit,omitempty"`
	TurnOnly bool          `json:"turn_only,omitempty"`
	Names    []string      `json:"names,omitempty"`
}

// reply is the warden's line, after which it closes the connection.
type reply struct {
	Failure *failure `json:"failure,omitempty"`
	Held    Held     `json:"held"`
	Stood   Stood    `json:"stood"`
}

// birth is what a starting warden is told over its inherited socket. It answers
// with a reply when it can be found.
type birth struct {
	StateDir string        `json:"state_dir"`
	CRIU     state.Process `json:"criu"`
}

// maxLine bounds a request in bytes.
const maxLine = 64 << 10

// failure is an error on its way from the warden to a hook process.
type failure struct {
	Text  string   `json:"text"`
	Kinds []string `json:"kinds,omitempty"`
	Errno int      `json:"errno,omitempty"`
}

// kinds are the errors that callers tell apart.
var kinds = map[string]error{
	"busy":      ErrBusy,
	"limit":     ErrLimit,
	"not held":  ErrNotHeld,
	"read only": ErrReadOnly,
	"host":      freeze.ErrHost,
	"ending":    errEnding,
	"there":     errThere,
}

func newFailure(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			f.Kinds = append(f.Kinds, name)
		}
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	}
	return f
}

// told is an error that the warden told us.
type told struct {
	text string
	errs []error
}

func (e *told) Error() string   { return e.text }
func (e *told) Unwrap() []error { return e.errs }

func (f *failure) err() error {
	if f == nil {
		return nil
	}
	e := &told{text: f.Text}
	for _, name := range f.Kinds {
		if kind, known := kinds[name]; known {
			e.errs = append(e.errs, kind)
		}
	}
	if f.Errno != 0 {
		e.errs = append(e.errs, unix.Errno(f.Errno))
	}
	return e
}

// sendLine writes v as one line, with descriptors.
func sendLine(conn *net.UnixConn, v any, fds ...int) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(line, rights, nil)
	if err != nil || n == len(line) {
		return err
	}
	_, err = conn.Write(line[n:])
	return err
}

// receiveRequest reads a request and at most one descriptor, nil without.
func receiveRequest(conn *net.UnixConn) (r request, file *os.File, err error) {
	buf := make([]byte, maxLine)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return r, nil, err
	}
	if file, err = passedFile(oob[:oobn]); err != nil {
		return r, nil, err
	}
	for !bytes.HasSuffix(buf[:n], []byte("\n")) && err == nil {
		var more int
		more, err = conn.Read(buf[n:])
		if n += more; err == nil && more == 0 {
			err = io.ErrShortBuffer
		}
	}
	if err == nil {
		err = decodeStrictly(buf[:n], &r)
	}
	if err != nil && file != nil {
		_ = file.Close()
		file = nil
	}
	return r, file, err
}

func passedFile(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "passed by the hook"), nil
}

// errHungUp says that nobody waits for the answer any more.
var errHungUp = errors.New("the hook process that asked has ended, or gave up")

// untilHungUp returns a context that ends when the other side closes.
func untilHungUp(ctx context.Context, conn *net.UnixConn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		cancel(errHungUp)
	}()
	return ctx, func() { cancel(nil) }
}

// checkPeer refuses who is at the other end under another uid (SO_PEERCRED,
// unix(7)), or, where it is known, as another process.
func checkPeer(conn *net.UnixConn, pid int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return fmt.Errorf("who is at the other end: %w", err)
	}
	if euid := os.Geteuid(); int(peer.Uid) != euid {
		return fmt.Errorf("%w: the other end is process %d of uid %d, not of uid %d", state.ErrUntrusted, peer.Pid, peer.Uid, euid)
	}
	if pid != 0 && int(peer.Pid) != pid {
		return fmt.Errorf("%w: the other end is process %d, the note names %d", state.ErrUntrusted, peer.Pid, pid)
	}
	return nil
}
