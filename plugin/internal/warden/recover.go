package warden

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// SettleTime is how long a warden may take for what it has to put back.
const SettleTime = 2 * time.Second

// Recover puts right what CRIU runs left behind that died together with their
// warden, in a state directory that holds these names: images get their names
// back, and notes, sockets, claims and locks of the dead are removed. It is called at
// the start of each checkpoint and restore, and costs microseconds if there is nothing to do.
// Several processes may call it at once. It waits for wardens that are still at
// work, for that long in all: SettleTime, or 0 where tasks are frozen.
//
// What belongs to a CRIU that is alive is left alone, also if its warden was
// killed: that is Start's. So is a directory whose turn another CRIU run has; it
// is seen to when that has ended.
//
// Nothing that it meets is a reason to give up the command: see Warnings.
func Recover(ctx context.Context, dir *state.Dir, names []string, wait time.Duration) (r state.Recovery) {
	deadline := time.Now().Add(wait)
	warn := func(err error) {
		if !errors.Is(err, errInUse) {
			r.Warn(err)
		}
	}
	for _, name := range names {
		if isNoteName(name) {
			done, err := settle(ctx, dir, name, time.Until(deadline))
			warn(err)
			r.Did(done)
		}
	}
	for _, name := range names { // those of the notes are gone by now
		switch criu, ok := socketOf(name); {
		case ok:
			warn(sweepSocket(dir, criu))
		case isTurnName(name):
			_, err := displace(dir, name, state.Process{})
			warn(err)
		}
	}
	dir.SweepLocks(names)
	return r
}

var (
	// errInUse says that somebody else is going to see to it.
	errInUse = errors.New("in use")
	// errPending says that somebody is about to remove the note.
	errPending = errors.New("not done yet")
)

// sweepSocket removes a socket that no note speaks of.
func sweepSocket(dir *state.Dir, criu state.Process) error {
	if !dead(criu) {
		return nil
	}
	if _, err := dir.Read(noteName(criu)); !errors.Is(err, unix.ENOENT) {
		return nil
	}
	return dir.Remove(socketName(criu))
}

// settle sees to one note and waits while somebody else does.
func settle(ctx context.Context, dir *state.Dir, name string, wait time.Duration) (done string, err error) {
	for deadline := time.Now().Add(wait); ; {
		done, err = see(ctx, dir, name)
		if !errors.Is(err, errPending) {
			return done, err
		}
		if time.Now().After(deadline) {
			return done, fmt.Errorf("%w, still after %v", err, max(wait, 0).Round(time.Millisecond))
		}
		if ended := pause(ctx, true); ended != nil {
			return "", fmt.Errorf("wait for the warden: %w: %w", err, ended)
		}
	}
}

// see sees to one note, if nobody else does. No error means that it is gone.
func see(ctx context.Context, dir *state.Dir, name string) (done string, err error) {
	file, err := dir.Claim(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", nil
	case errors.Is(err, state.ErrBusy):
		return "", fmt.Errorf("%w: %w", err, errPending)
	case err != nil:
		return "", err
	}
	defer file.Release()
	content, err := file.Read()
	if err != nil {
		return "", err
	}
	n, err := parseNote(content)
	if err == nil && noteName(n.CRIU) != name {
		err = fmt.Errorf("its name is not that of %s", n.CRIU)
	}
	if err != nil {
		return "", fmt.Errorf("note %s: %w: look at it, then remove it", dir.Join(name), err)
	}
	return n.judge(ctx, dir, file)
}

// judge acts if CRIU and the warden are dead.
func (n *note) judge(ctx context.Context, dir *state.Dir, file *state.Claim) (done string, err error) {
	path := dir.Join(noteName(n.CRIU))
	switch {
	case otherBoot(n.BootID):
	case n.CRIU.Foreign(), n.Warden.Foreign():
		return "", fmt.Errorf("note %s was made in another pid namespace: run ipc-cr there, or remove it if no CRIU runs there%s", path, n.Images)
	case n.CRIU.Alive():
		return "", fmt.Errorf("note %s of CRIU, %s: %w", path, n.CRIU, errInUse)
	case n.Warden.Stopped(): // it is not waited for
		return "", fmt.Errorf("note %s: the warden, %s, is stopped: kill -CONT %d%s", path, n.Warden, n.Warden.PID, n.Images)
	case n.Warden.Alive():
		return "", fmt.Errorf("note %s: the warden, %s, is still there: %w", path, n.Warden, errPending)
	}
	done, err = n.putBack(ctx, dir)
	if err != nil && !errors.Is(err, errMoved) {
		return done, fmt.Errorf("note %s of CRIU, %s: %w", path, n.CRIU, err)
	}
	return done, errors.Join(err, file.Remove()) // the socket is swept next
}

// String lists the images for a message, if there are any.
func (n *imagesNote) String() string {
	if n == nil || len(n.Names) == 0 {
		return ""
	}
	return fmt.Sprintf(" (images set aside in %q: %s, with the suffix %s)", n.Path, strings.Join(n.Names, ", "), Suffix)
}

// putBack does the work of a warden that was killed. A directory that is not
// where it was is not looked for again: a restore from it takes over what is
// aside there.
func (n *note) putBack(ctx context.Context, dir *state.Dir) (string, error) {
	if n.Images == nil || len(n.Images.Names) == 0 {
		return "", nil
	}
	f, err := openFolder(n.Images)
	if err != nil {
		return "", fmt.Errorf("CRIU, %s, and its warden were killed: put images back: %w%s", n.CRIU, err, n.Images)
	}
	defer unix.Close(f.fd)
	self, err := state.Self()
	if err != nil {
		return "", err
	}
	turn, err := folderTurn(ctx, dir, f, self, self, 0)
	if errors.Is(err, ErrBusy) {
		return "", fmt.Errorf("%w: %w", errInUse, err)
	}
	if err != nil {
		return "", err
	}
	back, _, err := f.putBack(n.Images.Names)
	err = errors.Join(err, turn.release())
	if len(back) == 0 {
		return "", err
	}
	return fmt.Sprintf("CRIU, %s, and its warden were killed: in %q these images have their names again: %s",
		n.CRIU, f.path, strings.Join(back, ", ")), err
}
