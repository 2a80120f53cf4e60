package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// request is one line from ipc-cr to its guard. It holds all that is guarded
// from now on, not what was added.
type request struct {
	// StateDir and Note are where the note is that the guard removes when it
	// has put everything back, empty without one.
	StateDir string `json:"state_dir,omitempty"`
	Note     string `json:"note,omitempty"`
	Root     *Root  `json:"root,omitempty"`
	Things
	// Done releases the guard: there is nothing to put back any more.
	Done bool `json:"done,omitempty"`
}

// reply is the guard's line for each request but Done.
type reply struct {
	Error string `json:"error,omitempty"`
}

// maxLine bounds a line in bytes.
const maxLine = 64 << 10

// answerTimeout and hangUpTimeout end the wait for a guard that somebody has
// stopped.
const (
	answerTimeout = 10 * time.Second
	hangUpTimeout = 2 * time.Second
)

// send writes v as one line.
func send(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(line) >= maxLine {
		return fmt.Errorf("line of %d bytes: %w", len(line), unix.EMSGSIZE)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// line is ipc-cr's end of the socket.
type line struct {
	file *os.File // non-blocking, so that it has deadlines
	in   *bufio.Reader
}

// ask sends a request and waits for the answer, so long. isGone(err) if the guard
// died.
func (l *line) ask(r request, within time.Duration) error {
	text, err := l.exchange(r, within)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer within %v: %w", within, err)
	}
	if err != nil {
		return err
	}
	var answer reply
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("answer %q: %w", text, err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}

// exchange sends a request and returns the line that comes back.
func (l *line) exchange(r request, within time.Duration) ([]byte, error) {
	if err := l.file.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	if err := send(l.file, r); err != nil {
		return nil, err
	}
	return l.in.ReadBytes('\n')
}

// hangUp sends Done and waits until the guard has closed its end. An error if
// it does not.
func (l *line) hangUp() error {
	if err := l.file.SetDeadline(time.Now().Add(hangUpTimeout)); err != nil {
		return err
	}
	if err := send(l.file, request{Done: true}); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, l.in)
	return err
}

// isGone says that the other end has died.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
