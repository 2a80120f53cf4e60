package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// pollInterval is the pause between two looks at a note.
const pollInterval = 5 * time.Millisecond

// Recover puts right what a killed ipc-cr and its killed guard left behind in a
// state directory, which holds these names. It is called at the start of each
// command and costs microseconds if there is nothing to do. Several processes may
// call it at once. It waits for guards that are still at work, for that long in all:
// SettleTime, or 0 where tasks are frozen.
//
// Nothing that it meets is a reason to give up the command: see Warnings.
func Recover(ctx context.Context, dir *state.Dir, names []string, wait time.Duration) (r state.Recovery) {
	deadline := time.Now().Add(wait)
	for _, name := range names {
		if !isNoteName(name) {
			continue
		}
		done, err := settle(ctx, dir, name, time.Until(deadline))
		if !errors.Is(err, errInUse) {
			r.Warn(err)
		}
		r.Did(done)
	}
	return r
}

var (
	// errInUse says that the note's owner is alive.
	errInUse = errors.New("in use")
	// errPending says that somebody is about to remove the note.
	errPending = errors.New("not done yet")
)

// SettleTime is how long a guard may take for what it has to put back.
const SettleTime = 2 * time.Second

// settle sees to one note and waits while somebody else does.
func settle(ctx context.Context, dir *state.Dir, name string, wait time.Duration) (done string, err error) {
	deadline := time.Now().Add(wait)
	for {
		done, err = look(dir, name)
		if !errors.Is(err, errPending) {
			return done, err
		}
		if time.Now().After(deadline) {
			return done, fmt.Errorf("%w, still after %v", err, max(wait, 0).Round(time.Millisecond))
		}
		if ended := pause(ctx); ended != nil {
			return "", fmt.Errorf("wait for the guard: %w: %w", err, ended)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollInterval):
		return nil
	}
}

// look sees to one note, if nobody else does. No error means that it is gone.
func look(dir *state.Dir, name string) (done string, err error) {
	claim, err := dir.Claim(name)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if errors.Is(err, state.ErrBusy) {
		return "", fmt.Errorf("%w: %w", err, errPending)
	}
	if err != nil {
		return "", err
	}
	defer claim.Release()
	content, err := claim.Read()
	if err != nil {
		return "", err
	}
	n, err := parseNote(content)
	if err != nil {
		return "", fmt.Errorf("note %s: %w: look at it, then remove it", dir.Join(name), err)
	}
	return n.see(dir.Join(name), claim)
}

// see judges a claimed note and acts.
func (n *note) see(path string, claim *state.Claim) (done string, err error) {
	switch {
	case n.otherBoot(), n.empty() && !n.Owner.Foreign() && !n.Owner.Alive() && !n.Guard.Alive():
		return "", claim.Remove()
	case n.Owner.Foreign():
		return "", n.seeForeign(path, claim)
	case n.Owner.Alive():
		return "", fmt.Errorf("note %s of %s: %w", path, n.Owner, errInUse)
	case n.Guard.Stopped(): // it is not waited for
		return "", fmt.Errorf("note %s: its guard, %s, is stopped: kill -CONT %d (%s)", path, n.Guard, n.Guard.PID, n.Things)
	case n.Guard.Alive():
		return "", fmt.Errorf("note %s: its guard, %s, is still there: %w", path, n.Guard, errPending)
	}
	return n.putBack(path, claim)
}

// seeForeign removes the note if its namespace is gone. Whether its processes
// live cannot be known from here.
func (n *note) seeForeign(path string, claim *state.Claim) error {
	ns, err := nsenter.OpenIdentity(n.Namespace)
	if errors.Is(err, nsenter.ErrGone) {
		return claim.Remove()
	}
	if err == nil {
		_ = ns.Close()
	}
	return fmt.Errorf("note %s was made in another pid namespace: run ipc-cr there, or remove it if no ipc-cr runs there (%s)", path, n.Things)
}

// putBack does the work of a guard that was killed.
func (n *note) putBack(path string, claim *state.Claim) (done string, err error) {
	ns, err := nsenter.OpenIdentity(n.Namespace)
	if errors.Is(err, nsenter.ErrGone) {
		return "", claim.Remove()
	}
	if err != nil {
		return "", fmt.Errorf("note %s: %w: if that namespace exists, put it back by hand (%s); then remove the note", path, err, n.Things)
	}
	defer ns.Close()
	if err := n.Things.PutBack(openSpace(ns, n.Root)); err != nil {
		return "", fmt.Errorf("note %s: %s: %w", path, ns, err)
	}
	done = fmt.Sprintf("%s and its guard were killed: its changes in %s are put back (%s)", n.Owner, ns, n.Things)
	return done, claim.Remove()
}

func (t Things) empty() bool { return len(t.Sysctls) == 0 }

// String lists the things for a message.
func (t Things) String() string {
	texts := make([]string, len(t.Sysctls))
	for i, c := range t.Sysctls {
		texts[i] = fmt.Sprintf("%s %d, raised to %d", c.Name, c.Old, c.Raised)
	}
	return strings.Join(texts, "; ")
}

// takeTurn creates the namespace's note, when the one before is gone.
func takeTurn(ns *nsenter.Namespace, root *Root, dir *state.Dir, timeout time.Duration) (*notePlace, error) {
	n, err := newNote(ns, root)
	if err != nil {
		return nil, err
	}
	place := &notePlace{dir: dir, name: n.fileName(), note: n}
	for deadline := time.Now().Add(timeout); ; time.Sleep(pollInterval) {
		if err := place.create(); err == nil || !errors.Is(err, unix.EEXIST) {
			return place, err
		}
		done, err := settle(context.Background(), dir, place.name, min(SettleTime, time.Until(deadline)))
		if done != "" {
			logPutBack(dir, done, nil)
		}
		if err != nil && !errors.Is(err, errInUse) {
			return nil, err
		}
		if err != nil && !time.Now().Before(deadline) {
			return nil, fmt.Errorf("another ipc-cr works in it, still after %s: %w", timeout, err)
		}
	}
}
