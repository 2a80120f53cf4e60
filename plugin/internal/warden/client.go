package warden

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

const (
	// answerTimeout ends the wait for a warden that somebody has stopped.
	answerTimeout = 10 * time.Second
	// startTimeout is what it may take to begin, on a machine that has no time for a new
	// process. Nobody is stopped when CRIU's first one is started. A container may be when a
	// killed one is succeeded at post-dump, but without a successor nothing is put back.
	startTimeout = 30 * time.Second
	// holdTimeout is what stopping all tasks may take.
	holdTimeout = time.Minute
	// endTimeout is what its end may take when it has said that it ends.
	endTimeout = 10 * time.Second
	// comingTimeout is how long a warden may live before it listens, and after.
	comingTimeout = 5 * time.Second
)

// errEnding says that the warden is putting everything back and takes nothing on.
var errEnding = errors.New("the warden is ending")

// Find returns the warden of a CRIU process. ErrNone if there never was one or
// it has ended, ErrKilled if its note is there but its process is dead.
func Find(criu state.Process, dir *state.Dir) (*Warden, error) {
	if dir == nil {
		return nil, fmt.Errorf("find the warden of CRIU, %s: %w", criu, state.ErrNowhere)
	}
	w := &Warden{dir: dir, criu: criu, wait: turnTimeout}
	if err := w.find(); err != nil {
		return nil, fmt.Errorf("find the warden of CRIU, %s: %w", criu, err)
	}
	return w, nil
}

// find makes sure that the warden answers.
func (w *Warden) find() (err error) {
	if w.process, err = w.noted(); err != nil {
		return err
	}
	_, err = w.call(context.Background(), request{Do: doPing})
	return err
}

// noted reads who the warden is.
func (w *Warden) noted() (state.Process, error) {
	content, err := w.dir.Read(noteName(w.criu))
	if errors.Is(err, unix.ENOENT) {
		return state.Process{}, ErrNone
	}
	if err != nil {
		return state.Process{}, err
	}
	n, err := parseNote(content)
	if err == nil && n.CRIU != w.criu {
		err = fmt.Errorf("it is of another CRIU, %s", n.CRIU)
	}
	if err != nil {
		return state.Process{}, fmt.Errorf("note %s: %w: look at it, then remove it", w.dir.Join(noteName(w.criu)), err)
	}
	if otherBoot(n.BootID) || dead(n.Warden) {
		return n.Warden, fmt.Errorf("%w (%s)", ErrKilled, n.Warden)
	}
	return n.Warden, nil
}

// trouble says what has become of the warden, nil if it is alive.
func (w *Warden) trouble() error {
	now, err := w.noted()
	if err == nil && now != w.process {
		err = fmt.Errorf("%w (%s; now there is %s)", ErrKilled, w.process, now)
	}
	return err
}

// call asks the warden and waits for its answer, which is valid with an error
// of the warden's, too.
func (w *Warden) call(ctx context.Context, r request, fds ...int) (reply, error) {
	r.Wait = w.wait
	conn, err := w.dial(ctx)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer, err := ask(conn, r, fds, r.patience())
	switch {
	case err == nil:
		return answer, answer.Failure.err()
	case ctx.Err() != nil:
		return reply{}, context.Cause(ctx)
	case isGone(err):
		return reply{}, w.explainGone(err)
	}
	return reply{}, fmt.Errorf("ask process %d: %w", w.process.PID, err)
}

func ask(conn *net.UnixConn, r request, fds []int, within time.Duration) (answer reply, err error) {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return answer, err
	}
	if err := sendLine(conn, r, fds...); err != nil {
		return answer, late(err, "request not taken", within)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return answer, late(err, "no answer to "+strconv.Quote(r.Do), within)
	}
	return answer, json.Unmarshal(line, &answer)
}

// late says what did not happen, and for how long it was waited for, where a wait was
// ended by its deadline.
func late(err error, what string, within time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s within %v: %w", what, within, err)
	}
	return err
}

func (r request) patience() time.Duration {
	switch r.Do {
	case doHold:
		return answerTimeout + r.Wait + holdTimeout
	case doPing:
		return answerTimeout
	}
	return answerTimeout + r.Wait // what asks for no turn may come after what waits for one
}

// dial connects, and waits for a warden that does not listen yet or any more.
func (w *Warden) dial(ctx context.Context) (*net.UnixConn, error) {
	path := "/proc/self/fd/" + strconv.Itoa(w.dir.Fd()) + "/" + socketName(w.criu) // sun_path is short
	for deadline := time.Now().Add(comingTimeout); ; {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			if err := checkPeer(conn, w.process.PID); err != nil {
				_ = conn.Close()
				if trouble := w.trouble(); trouble != nil {
					return nil, trouble
				}
				return nil, fmt.Errorf("socket %s: %w", w.dir.Join(socketName(w.criu)), err)
			}
			return conn, nil
		}
		if trouble := w.trouble(); trouble != nil {
			return nil, trouble
		}
		if !mayCome(err) {
			return nil, fmt.Errorf("connect to process %d: %w", w.process.PID, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("connect to process %d, still after %v: %w", w.process.PID, comingTimeout, err)
		}
		if ended := pause(ctx, true); ended != nil {
			return nil, fmt.Errorf("connect to process %d: %w: %w", w.process.PID, err, ended)
		}
	}
}

// explainGone says why the warden did not answer: it was killed or has ended,
// which its note tells when the process is dead.
func (w *Warden) explainGone(err error) error {
	gone := watch(w.process)
	defer gone.close()
	gone.within(comingTimeout)
	if trouble := w.trouble(); trouble != nil {
		return trouble
	}
	return fmt.Errorf("process %d hung up: %w", w.process.PID, err)
}

// isGone says that there is nobody at the other end.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNREFUSED)
}

// mayCome says that a warden which is alive may not listen yet or any more, or
// has many at its door (EAGAIN, unix(7)).
func mayCome(err error) bool {
	return isGone(err) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAGAIN)
}
