package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestKilledOwner(t *testing.T) {
	for name, dir := range map[string]*state.Dir{"with a note": tempState(t), "without": nil} {
		t.Run(name, func(t *testing.T) {
			ns := nstest.Fresh(t)
			o := startOwner(t, ns, dir)
			if got := getMax(t, ns, nil); got != raised {
				t.Fatalf("msgmax is %d, the owner has not raised it", got)
			}
			o.Kill()
			until(t, "msgmax is as before", func() bool { return getMax(t, ns, nil) == oldMax })
			if dir != nil {
				until(t, "the note is gone", empty(t, dir))
			}
		})
	}
}

func TestReleasedGuardChangesNothing(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	o := startOwner(t, ns, dir)
	fmt.Fprintln(o.Stdin)
	if err := o.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left in the state directory: %v", got)
	}
	if _, err := state.Lookup(o.guard); !errors.Is(err, unix.ENOENT) {
		t.Errorf("guard after release: %v, want ENOENT", err)
	}
}

// Released is released, whatever the value is now: it may be meant to stay.
func TestReleasedGuardPutsNothingBack(t *testing.T) {
	ns := nstest.Fresh(t)
	g := start(t, ns, tempState(t))
	if err := g.Set(change(oldMax, raised)); err != nil {
		t.Fatal(err)
	}
	if err := setMax(ns, nil, raised); err != nil {
		t.Fatal(err)
	}
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	if got := getMax(t, ns, nil); got != raised {
		t.Errorf("msgmax is %d after the release, %d before", got, raised)
	}
}

func TestGuardLeavesOthersChangesAlone(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	o := startOwner(t, ns, dir)
	if err := setMax(ns, nil, 12345); err != nil {
		t.Fatal(err)
	}
	o.Kill()
	until(t, "the guard has done its work", empty(t, dir))
	if got := getMax(t, ns, nil); got != 12345 {
		t.Errorf("msgmax is %d, somebody else's 12345 before", got)
	}
}

// A guard is nobody's burden: no descriptors, session, directory or environment
// of its parent's, and not in the namespace.
func TestGuardsSurroundings(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	t.Setenv("IPC_CR_TEST_SECRET", "x")
	o := startOwner(t, ns, dir)
	proc := fmt.Sprintf("/proc/%d/", o.guard)
	kinds := map[string]int{}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(proc + "fd/" + fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		kinds[strings.SplitN(target, ":[", 2)[0]]++
		if strings.HasPrefix(target, "ipc:") && target != ns.Link() {
			t.Errorf("descriptor %s is %s, want %s", fd.Name(), target, ns)
		}
	}
	for kind, want := range map[string]int{"/dev/null": 3, "socket": 1, "ipc": 1} {
		if kinds[kind] != want {
			t.Errorf("%d descriptors on %s, want %d", kinds[kind], kind, want)
		}
		delete(kinds, kind)
	}
	for _, runtimes := range []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode"} {
		delete(kinds, runtimes)
	}
	if len(kinds) != 0 {
		t.Errorf("other descriptors: %v", kinds)
	}
	if session, err := unix.Getsid(o.guard); err != nil || session != o.guard {
		t.Errorf("session %d, %v, want its own, %d", session, err, o.guard)
	}
	for link, want := range map[string]string{"cwd": "/", "ns/ipc": mustLink(t, "/proc/self/ns/ipc")} {
		if got := mustLink(t, proc+link); got != want {
			t.Errorf("%s is %s, want %s", link, got, want)
		}
	}
	for file, want := range map[string]string{"environ": "GODEBUG=containermaxprocs=0\x00", "cmdline": "ipc-cr-guard\x00", "comm": "ipc-cr-guard\n"} {
		got, err := os.ReadFile(proc + file)
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", file, got, err, want)
		}
	}
}

func mustLink(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestGuardSurvivesSignals(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	o := startOwner(t, ns, dir)
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM, unix.SIGQUIT} {
		if err := unix.Kill(o.guard, signal); err != nil {
			t.Fatal(err)
		}
	}
	o.Kill()
	until(t, "msgmax is as before", func() bool { return getMax(t, ns, nil) == oldMax })
	until(t, "the note is gone", empty(t, dir))
}

// start starts a guard of the test process itself.
func start(t *testing.T, ns *nsenter.Namespace, dir *state.Dir) *Guard {
	t.Helper()
	g, err := Start(ns, dir, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Release() })
	return g
}

// Raise is called on a thread inside the container's namespace, perhaps with
// other credentials: the guard must not be born there.
func TestGuardIsNotBornInTheNamespace(t *testing.T) {
	ns := nstest.Fresh(t)
	var g *Guard
	err := ns.Run(func() (err error) {
		g, err = Start(ns, nil, time.Minute)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	if got := mustLink(t, fmt.Sprintf("/proc/%d/ns/ipc", g.PID())); got != mustLink(t, "/proc/self/ns/ipc") {
		t.Errorf("the guard was born in %s", got)
	}
}

func TestKilledGuardIsReplaced(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	g := start(t, ns, dir)
	first := g.PID()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := g.Set(change(oldMax, raised)); err != nil {
		t.Fatal(err)
	}
	if g.PID() == first {
		t.Error("it was not replaced")
	}
	content, err := dir.Read(g.note.name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := parseNote(content)
	if err != nil || n.Guard.PID != g.PID() || !slices.Equal(n.Sysctls, change(oldMax, raised).Sysctls) {
		t.Errorf("noted %+v, %v: want guard %d and the change", n, err, g.PID())
	}
}

func TestReleaseOfADeadOrStoppedGuard(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		ns, dir := nstest.Fresh(t), tempState(t)
		g := start(t, ns, dir)
		pid := g.PID()
		if err := unix.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		if err := g.Release(); err != nil {
			t.Errorf("release after %v: %v", signal, err)
		}
		if _, err := state.Lookup(pid); !errors.Is(err, unix.ENOENT) {
			t.Errorf("after %v: guard %v, want ENOENT", signal, err)
		}
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("after %v: %v left", signal, left)
		}
	}
}

func TestSetFailsWhereTheGuardCannotReach(t *testing.T) {
	g := start(t, nstest.Fresh(t), nil)
	err := g.Set(Things{Sysctls: []Sysctl{{Name: "kernel.msg_nothing"}}})
	if err == nil || !strings.Contains(err.Error(), "kernel.msg_nothing") {
		t.Errorf("set: %v, want an error that names the sysctl", err)
	}
}

func TestStartTakesTurns(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	o := startOwner(t, ns, dir)
	_, err := takeTurn(ns, nil, dir, 20*time.Millisecond)
	if !errors.Is(err, errInUse) || !strings.Contains(err.Error(), fmt.Sprint(o.PID())) {
		t.Fatalf("beside another owner: %v, want errInUse and its pid", err)
	}
	started := make(chan error)
	go func() {
		g, err := Start(ns, dir, time.Minute)
		if err == nil {
			err = g.Release()
		}
		started <- err
	}()
	fmt.Fprintln(o.Stdin)
	if err := o.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Errorf("when the other has ended: %v", err)
	}
	if other, err := Start(nstest.Fresh(t), dir, time.Minute); err != nil {
		t.Errorf("in another namespace: %v", err)
	} else {
		other.Release()
	}
}

// A note that nobody can read must not be taken for nothing.
func TestStartBesideGarbage(t *testing.T) {
	ns, dir := nstest.Fresh(t), tempState(t)
	n, err := newNote(ns, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Create(n.fileName(), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if g, err := Start(ns, dir, time.Minute); err == nil {
		g.Release()
		t.Error("started")
	} else if !strings.Contains(err.Error(), filepath.Join(dir.Path(), n.fileName())) {
		t.Errorf("error %q does not name the file", err)
	}
}

// A namespace of a child user namespace lets only its own root write.
func TestGuardOverAChildUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	pid := nstest.InUserNS(t)
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	root, err := rootOf(ns)
	if err != nil || root == nil || root.UID == 0 {
		t.Fatalf("root %v, %v: want the mapped one", root, err)
	}
	dir := tempState(t)
	startOwner(t, ns, dir).Kill()
	until(t, "msgmax is as before", func() bool { return getMax(t, ns, root) == oldMax })
	until(t, "the note is gone", empty(t, dir))

	startOwner(t, ns, dir).killBoth(t)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil { // nobody left to ask for the mapping
		t.Fatal(err)
	}
	if r := recoverNow(dir); len(r.Done) != 1 || len(r.Warnings) != 0 {
		t.Errorf("recovery %+v, want one thing done", r)
	}
	if got := getMax(t, ns, root); got != oldMax {
		t.Errorf("msgmax is %d, want %d", got, oldMax)
	}
}
