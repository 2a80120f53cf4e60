package warden

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The errors of a Warden, beside ErrBusy and ErrReadOnly.
var (
	// ErrNone says that CRIU process has no warden.
	ErrNone = errors.New("there is no warden of this CRIU process")
	// ErrKilled says that the warden was killed. The tasks that it held run, and
	// what it set aside is aside until Start or Recover.
	ErrKilled = errors.New("the warden was killed")
	// ErrNotHeld says that the warden holds no tasks: nobody asked for it, or a
	// warden that was killed let them go.
	ErrNotHeld = errors.New("no tasks are held")
	// ErrLimit says that the tasks had been frozen for as long as they may and
	// were let go.
	ErrLimit = errors.New("the tasks were thawed: they had been frozen for as long as they may")
)

// Warden is the warden of one CRIU process, as a hook process sees it. Each call
// is a connection of its own: nothing is open between calls, and a hook process
// may end at any moment. Every method's error matches ErrKilled if the warden
// was killed, and ErrNone if it has ended.
//
// A Warden may be used from several goroutines at once; the warden does one
// thing after the other.
type Warden struct {
	dir     *state.Dir
	criu    state.Process
	process state.Process   // the warden itself
	wait    time.Duration   // for a turn
	reaped  <-chan struct{} // nil unless it is our child
}

// PID is the warden's process id.
func (w *Warden) PID() int { return w.process.PID }

// HoldRequest says which tasks are to be frozen.
type HoldRequest struct {
	// Namespace is the IPC namespace whose tasks are stopped. Not the host's.
	Namespace *nsenter.Namespace
	// Init is the container's first process as the host sees it. It and all its
	// descendants are CRIU's to freeze, and run on. 0 means that there is none.
	Init int
	// Limit is how long the tasks may be frozen; 0 means without limit. When
	// it is over they are let go, and Let returns ErrLimit.
	Limit time.Duration
	// TurnOnly takes the namespace's turn and stops nobody, for a dump that stops
	// the tasks itself when its copy is due.
	TurnOnly bool
}

// Held says what is frozen.
type Held struct {
	Inode      uint64 `json:"inode"`      // of the namespace
	Tasks      int    `json:"tasks"`      // threads held
	Unreadable int    `json:"unreadable"` // tasks whose namespace could not be read
	// Unseen: tasks may run that are not held. They were born and ended too fast to be
	// looked at, or CRIU is making them.
	Unseen bool `json:"unseen"`
	// Unwatched says why nothing would let the tasks go if the warden were stopped
	// itself, "" if that is seen to.
	Unwatched string `json:"unwatched,omitempty"`
	Exempt    int    `json:"exempt"` // threads of the namespace that run on
	// Loose are tasks that could not be stopped, because somebody else had stopped
	// them or they did not stop in time: they may run. At most a few hundred are
	// listed; LooseTotal counts all.
	Loose      []freeze.Task `json:"loose,omitempty"`
	LooseTotal int           `json:"loose_total"`
}

// Stood is how long the tasks were frozen.
type Stood struct {
	Held
	For time.Duration `json:"for"` // from before the first was stopped until all were let go
}

// Hold stops all tasks of a namespace, until Let, End, the limit or CRIU's
// death. Never stopped: the tree below Init, CRIU, its descendants and
// ancestors, the warden. It needs the rights that freeze.All needs.
//
// Two dumps in one namespace take turns: Hold waits for another CRIU run that
// holds it, a minute at most, then fails with ErrBusy and names it. A second
// Hold that asks the same changes nothing. ctx ends Hold, not what it has begun
// when it has returned.
//
// freeze.ErrHost if it is the host's namespace.
func (w *Warden) Hold(ctx context.Context, r HoldRequest) (Held, error) {
	answer, err := w.call(ctx, request{Do: doHold, Init: r.Init, Limit: r.Limit, TurnOnly: r.TurnOnly}, r.Namespace.Fd())
	if err != nil {
		return Held{}, fmt.Errorf("hold the tasks of %s: %w", r.Namespace, err)
	}
	return answer.Held, nil
}

// Let lets the tasks go and ends the namespace's turn. On an error they did not
// are frozen all the time, or it cannot be known: the dump must fail. It is
// ErrLimit (Stood is valid then), ErrKilled or ErrNotHeld.
func (w *Warden) Let() (Stood, error) {
	answer, err := w.call(context.Background(), request{Do: doLet})
	if err != nil {
		return answer.Stood, fmt.Errorf("let the tasks go: %w", err)
	}
	return answer.Stood, nil
}

// SetAside takes the turn of an images directory and renames each of the named
// files, ipcns images all, to its name with Suffix. All or none: on an error
// everything has its name, and the turn is given up unless something was aside
// before. A file that is missing is left out; one that a killed run set aside is
// taken over; both, or anything but a regular file, is refused.
//
// dir may be a magic link such as CRTOOLS_IMAGE_DIR is; it is opened once.
// Another run's turn is waited for, a minute at most, then it is ErrBusy, which
// names it. ErrReadOnly if nothing can be renamed there.
func (w *Warden) SetAside(dir string, names []string) error {
	if err := checkNames(names); err != nil {
		return fmt.Errorf("set images aside in %q: %w", dir, err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set images aside: open directory %q: %w", dir, err)
	}
	defer unix.Close(fd)
	if _, err := w.call(context.Background(), request{Do: doAside, Names: names}, fd); err != nil {
		return fmt.Errorf("set images aside in %q: %w", dir, err)
	}
	return nil
}

// End lets all tasks go, puts everything back, removes the warden's files from
// the state directory and ends it. When it returns the process has ended. What
// could not be put back is in the error, and stays noted for Recover. A warden
// that has ended by itself is no error.
func (w *Warden) End() error {
	gone := watch(w.process)
	defer gone.close()
	_, err := w.call(context.Background(), request{Do: doEnd})
	if errors.Is(err, ErrNone) || errors.Is(err, errEnding) {
		err = nil
	}
	if err != nil && !isTold(err) {
		return fmt.Errorf("end the warden: %w", err)
	}
	if !gone.within(endTimeout) {
		return errors.Join(err, fmt.Errorf("end the warden: process %d is still there after %s", w.process.PID, endTimeout))
	}
	if w.reaped != nil {
		<-w.reaped
	}
	if err != nil {
		return fmt.Errorf("end the warden: %w", err)
	}
	return nil
}

func isTold(err error) bool {
	var t *told
	return errors.As(err, &t)
}
