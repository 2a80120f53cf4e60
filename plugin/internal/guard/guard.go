// Package guard sees to it that what ipc-cr changes for a moment outside its own
// files does not outlive it, whatever it dies of, SIGKILL included.
//
// A guard is a small process of the same binary, in a session of its own and
// with nothing open but stdio on /dev/null, a socket to its parent and the
// namespace. It learns of its parent's end by the end of that socket and puts
// back what it was told to. That is noted first in the state directory, too
// (package state): if the guard is killed as well, Recover, which every checkpoint
// and restore calls, puts it right.
//
// Importing this package is all that a program needs: where the binary is
// started as a guard, the package's initialisation does the guard's work and
// exits, before main. The initialisation of packages that do not depend on this
// one may run before it.
//
// Do not use it for what the kernel undoes by itself, such as tasks stopped with
// ptrace(2).
package guard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Guard is a guard of this process over things in one IPC namespace. It is not
// for use from several goroutines at once.
type Guard struct {
	ns    *nsenter.Namespace
	root  *Root
	note  *notePlace // nil without a state directory
	child *child     // nil after it was found dead
}

// Start starts a guard over a namespace. It guards nothing yet. With a state
// directory, which must stay open until Release, what it guards is noted there;
// dir may be nil.
//
// One guard over a namespace at a time, or one would take the other's change for
// the state before: while another process's note is there, Start waits for that
// long.
func Start(ns *nsenter.Namespace, dir *state.Dir, wait time.Duration) (*Guard, error) {
	g := &Guard{ns: ns}
	if err := detached(func() error { return g.start(dir, wait) }); err != nil {
		return nil, fmt.Errorf("guard over %s: %w", ns, err)
	}
	return g, nil
}

// Await waits, for that long, while another process has a guard over a namespace,
// and takes no turn.
func Await(ctx context.Context, ns *nsenter.Namespace, dir *state.Dir, wait time.Duration) error {
	name, err := noteName(ns)
	if err != nil {
		return fmt.Errorf("guard over %s: %w", ns, err)
	}
	for deadline := time.Now().Add(wait); ; {
		done, err := settle(ctx, dir, name, time.Until(deadline))
		if done != "" {
			logPutBack(dir, done, nil)
		}
		if !errors.Is(err, errInUse) {
			return nil // what is wrong with it is said when it is needed
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("guard over %s: another ipc-cr works in it, still after %s: %w", ns, wait, err)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for another ipc-cr that works in %s: %w", ns, err)
		}
	}
}

func (g *Guard) start(dir *state.Dir, wait time.Duration) (err error) {
	if g.root, err = rootOf(g.ns); err != nil {
		return err
	}
	if dir != nil {
		if g.note, err = takeTurn(g.ns, g.root, dir, wait); err != nil {
			return err
		}
	}
	if g.child, err = spawn(g.ns.Fd()); err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), g.removeNote())
	}
	return nil
}

// Set makes these the things that are guarded, all of them. It returns when they
// are noted and the guard has answered that it can reach them; only then they
// may be changed. A guard that was killed meanwhile is replaced.
func (g *Guard) Set(things Things) error {
	err := detached(func() error {
		err := g.tell(things)
		if !isGone(err) {
			return err
		}
		g.child.release()
		if g.child, err = spawn(g.ns.Fd()); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		return g.tell(things)
	})
	if err != nil {
		return fmt.Errorf("guard over %s: %w", g.ns, err)
	}
	return nil
}

func (g *Guard) tell(things Things) error {
	if g.child == nil {
		return fmt.Errorf("tell: %w", errReleased)
	}
	r := request{Root: g.root, Things: things}
	if g.note != nil {
		if err := g.note.write(g.child.process.Pid, things); err != nil {
			return err
		}
		r.StateDir, r.Note = g.note.dir.Path(), g.note.name
	}
	if err := g.child.line.ask(r, answerTimeout); err != nil {
		return fmt.Errorf("tell process %d: %w", g.child.process.Pid, err)
	}
	return nil
}

var errReleased = errors.New("the guard was released or could not be started")

// Release removes the note, ends the guard and reaps it. The caller has put
// everything back. A guard that has died meanwhile is no error.
func (g *Guard) Release() error {
	return detached(func() error {
		err := g.removeNote()
		if g.child != nil {
			g.child.release()
			g.child = nil
		}
		return err
	})
}

func (g *Guard) removeNote() error {
	if g.note == nil {
		return nil
	}
	return g.note.dir.Remove(g.note.name)
}

// PID is the guard's process id, 0 after Release: for those that stop tasks,
// because a stopped guard does not answer.
func (g *Guard) PID() int {
	if g.child == nil {
		return 0
	}
	return g.child.process.Pid
}

// detached runs fn on a thread of the process's own namespaces and credentials:
// the caller's may be inside a container's. The runtime never clones a new
// thread from a locked one.
func detached(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return <-done
}
