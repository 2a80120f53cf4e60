package infront

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The main goroutine of a process that becomes criu stays on the process's first
// thread: execve(2) from another would lose what belongs to the first alone, the
// death signal that a parent may have asked for (prctl(2), PR_SET_PDEATHSIG) and
// its scheduling. Where init locks it, main runs on it.
func init() {
	if Invoked() {
		runtime.LockOSThread()
	}
}

// Invoked reports whether the binary was run under the name criu.
func Invoked() bool { return len(os.Args) > 0 && filepath.Base(os.Args[0]) == Name }

// Main is what the binary does when it was run under the name criu: it becomes
// the real criu, beside the tasks' namespace for a dump that allows it. It
// returns only if that cannot be executed, with the exit status of a shell: 127
// if there is none, 126 otherwise. It must be called from the main goroutine,
// before anything changes signals.
//
// It needs for the way beside the namespace what setns(2) needs, the right to look
// at the tasks (ptrace(2)) and /run/ipc-cr; without, the dump goes the ordinary
// way.
func Main() int {
	p, err := findPlace(os.Args[0])
	if err != nil {
		return fail(127, err)
	}
	f := &front{place: p, say: p.sayer()}
	request, err := ParseCommandLine(os.Args[1:])
	if err == nil {
		err = request.Peek()
	}
	if err == nil && request.Dump {
		err = f.beside(request)
	}
	err = f.become(f.ordinary(request, err))
	return fail(126, fmt.Errorf("execute %s: %w", p.next, err))
}

// fail says why there is no criu, and returns the exit status. A runtime's criu has
// no stderr.
func fail(status int, why error) int {
	fmt.Fprintf(os.Stderr, "ipc-cr: %s\n", eventlog.Escape(why.Error()))
	_ = eventlog.WriteHere(eventlog.Entry{Action: Name, CRIU: os.Getpid(), Error: why.Error()})
	return status
}

// OrdinaryEnv is the variable in which criu's action scripts find why a dump goes
// the ordinary way although ipc-cr is in front: a runtime's criu has no stderr
// on which it could be said.
const OrdinaryEnv = "IPC_CR_ORDINARY_WAY"

// ordinary says and logs why a dump goes the ordinary way, and returns it for criu's
// environment. Where that loses nothing it is said only to those who asked for
// the other way (Link): installed for the host, ipc-cr must not be heard in what
// has nothing to do with it.
func (f *front) ordinary(r *Request, why error) (added []string) {
	if why == nil || errors.Is(why, errNothingLost) && !f.linked() {
		return nil
	}
	text := fmt.Sprintf("the dump goes the ordinary way, CRIU saves the IPC namespace itself: %v", why)
	f.say("%s", text)
	logOrdinary(r, text)
	return []string{ordinaryEnv(text)}
}

// ordinaryEnv is the entry of an environment that says it. What a request has named
// may be of any length and hold any byte: with a zero byte, or more than 128 KiB,
// criu could not be executed (execve(2)).
func ordinaryEnv(text string) string { return OrdinaryEnv + "=" + eventlog.BoundError(text) }

// logOrdinary logs it, because a script is not in force on every host. It waits for
// nobody. r is nil where what is asked for could not be read.
func logOrdinary(r *Request, text string) {
	e := eventlog.Entry{Action: "dump", CRIU: os.Getpid(), Done: []string{text}}
	if r != nil {
		e.Init = r.PID
	}
	e.Container = eventlog.Container(e.Init, e.CRIU, "")
	_ = eventlog.WriteHere(e) // criu must come
}

// front is a process on its way to become criu.
type front struct {
	*place
	say func(format string, args ...any)
}

// beside becomes criu beside the namespace of the tasks. It returns why not, with
// everything as it was.
func (f *front) beside(r *Request) error {
	user, err := userConfig()
	if err != nil {
		return err
	}
	if r.socket < 0 {
		err = r.obstructed(user)
	}
	switch {
	case err != nil:
		return err
	case r.Obstacle != "":
		return errors.New(r.Obstacle)
	}
	hook, err := f.hook()
	if err != nil {
		return err
	}
	ns, err := judge(r.PID)
	if err != nil {
		return err
	}
	defer ns.Close()
	dir, err := state.Default()
	if err != nil {
		return err
	}
	defer dir.Close()
	sweep(dir)
	config, err := writeConfig(dir, user, hook)
	if err != nil {
		return err
	}
	err = f.enter(ns, config)
	return errors.Join(err, dir.Remove(filepath.Base(config)))
}

// enter takes this thread into the namespace and becomes criu there. When it
// returns, the thread is back.
func (f *front) enter(ns *nsenter.Namespace, config string) error {
	home, err := nsenter.Current()
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(ns.Fd(), unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("enter %s: %w", ns, os.NewSyscallError("setns", err))
	}
	err = f.become([]string{ConfigEnv + "=" + config})
	err = fmt.Errorf("execute %s beside %s: %w", f.next, ns, err)
	if back := unix.Setns(home.Fd(), unix.CLONE_NEWIPC); back != nil {
		return errors.Join(err, fmt.Errorf("back to %s: %w", home, os.NewSyscallError("setns", back)))
	}
	return err
}

// become executes the real criu with what this process was given.
func (f *front) become(added []string) error {
	added = append(added, passedEnv+"="+strings.Join(f.passed, " "))
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == OrdinaryEnv || slices.ContainsFunc(added, func(a string) bool { return strings.HasPrefix(a, name+"=") })
	})
	args := slices.Clone(os.Args)
	if strings.ContainsRune(args[0], '/') {
		args[0] = f.next
	}
	return unix.Exec(f.next, args, append(env, added...))
}

// linked reports whether this process was found under a Link.
func (p *place) linked() bool {
	said := openSaid(p.link)
	if said == nil {
		return false
	}
	return said.Close() == nil
}

// sayer returns what says one line: on stderr, and where the link that this
// process was found under has a file for it (Link).
func (p *place) sayer() func(format string, args ...any) {
	return func(format string, args ...any) {
		line := "ipc-cr: " + eventlog.Escape(fmt.Sprintf(format, args...)) + "\n"
		if said := openSaid(p.link); said != nil {
			defer said.Close()
			_, _ = io.WriteString(said, line)
			return
		}
		_, _ = io.WriteString(os.Stderr, line)
	}
}
