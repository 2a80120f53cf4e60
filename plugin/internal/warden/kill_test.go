package warden

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// scene is a CRIU whose warden holds a neighbour and has an image set aside.
type scene struct {
	ns   *nsenter.Namespace
	dir  *state.Dir
	c    counters
	img  string
	criu fakeCRIU
	w    *Warden
	held Held
}

func newScene(t *testing.T) scene {
	t.Helper()
	s := scene{ns: nstest.Fresh(t), dir: tempState(t), c: newCounters(t), img: imagesDir(t, msgImage)}
	startFamily(t, s.ns, s.c, 0, 0)
	startFamily(t, nil, s.c, 1, 0)
	s.criu = startCRIU(t, s.dir)
	s.w = s.criu.start(t, s.dir)
	s.held = mustHold(t, s.w, HoldRequest{Namespace: s.ns})
	must(t, s.w.SetAside(s.img, []string{msgImage}))
	s.c.mustStand(t, 1, 0)
	mustContain(t, s.img, msgImage+Suffix)
	return s
}

func TestKilledCRIU(t *testing.T) {
	s := newScene(t)
	s.criu.Kill()
	s.c.mustRun(t, 0)
	until(t, "the warden has ended", func() bool { return !s.w.process.Alive() })
	mustContain(t, s.img, msgImage)
	mustBeEmpty(t, s.dir)
	if _, err := s.w.Let(); !errors.Is(err, ErrNone) {
		t.Errorf("let: %v, want ErrNone", err)
	}
	if _, err := Start(s.criu.id, s.dir); !errors.Is(err, unix.ESRCH) {
		t.Errorf("start for a dead CRIU: %v, want ESRCH", err)
	}
	mustBeEmpty(t, s.dir)
}

func TestKilledWarden(t *testing.T) {
	s := newScene(t)
	killed(t, s.w)
	s.c.mustRun(t, 0)
	if _, err := Find(s.criu.id, s.dir); !errors.Is(err, ErrKilled) {
		t.Errorf("find: %v, want ErrKilled", err)
	}
	if _, err := s.w.Let(); !errors.Is(err, ErrKilled) {
		t.Errorf("let: %v, want ErrKilled", err)
	}
	if r := recoverNow(s.dir); len(r.Done)+len(r.Warnings) != 0 {
		t.Errorf("recovery %+v: CRIU lives", r)
	}
	mustContain(t, s.img, msgImage+Suffix)

	again := s.criu.start(t, s.dir)
	if _, err := s.w.Let(); !errors.Is(err, ErrKilled) {
		t.Errorf("let, to the old one: %v, want ErrKilled", err)
	}
	mustBeAside(t, again, msgImage)
	if _, err := again.Let(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("let: %v, want ErrNotHeld", err)
	}
	mustHold(t, again, HoldRequest{Namespace: s.ns}) // its own claim bars it not
	if _, err := again.Let(); err != nil {
		t.Error(err)
	}
	must(t, again.End())
	mustContain(t, s.img, msgImage)
	mustBeEmpty(t, s.dir)
	if _, err := Find(s.criu.id, s.dir); !errors.Is(err, ErrNone) {
		t.Errorf("find after the end: %v, want ErrNone", err)
	}
}

func TestKilledWardenSucceededUntilCRIUsEnd(t *testing.T) {
	s := newScene(t)
	killed(t, s.w)
	killed(t, s.criu.start(t, s.dir)) // the successor, too
	again := s.criu.start(t, s.dir)
	mustBeAside(t, again, msgImage)
	s.criu.Kill()
	until(t, "the warden has ended", func() bool { return !again.process.Alive() })
	mustContain(t, s.img, msgImage)
	left := files(t, s.dir) // the killed one's claim of the namespace, and its lock
	if len(left) != 2 || !slices.ContainsFunc(left, isTurnName) || !slices.ContainsFunc(left, isLockName) {
		t.Errorf("files %v, want a claim and a lock", left)
	}
	if r := recoverNow(s.dir); len(r.Done)+len(r.Warnings) != 0 {
		t.Errorf("recovery %+v", r)
	}
	mustBeEmpty(t, s.dir)
}

func isLockName(name string) bool { return strings.HasSuffix(name, state.LockSuffix) }

func TestBothKilled(t *testing.T) {
	s := newScene(t)
	killed(t, s.w)
	s.criu.Kill()
	s.c.mustRun(t, 0)
	mustContain(t, s.img, msgImage+Suffix)
	var group sync.WaitGroup
	var mu sync.Mutex
	var all state.Recovery
	for range 4 {
		group.Go(func() {
			r := recoverNow(s.dir)
			mu.Lock()
			defer mu.Unlock()
			all.Done, all.Warnings = append(all.Done, r.Done...), append(all.Warnings, r.Warnings...)
		})
	}
	group.Wait()
	if len(all.Done) != 1 || !strings.Contains(all.Done[0], msgImage) || len(all.Warnings) != 0 {
		t.Errorf("recovery %+v, want one thing done once", all)
	}
	mustContain(t, s.img, msgImage)
	// A killed process gives its locks free with the last of its threads.
	until(t, "nothing is left", func() bool {
		if r := recoverNow(s.dir); len(r.Done)+len(r.Warnings) != 0 {
			t.Errorf("once more: %+v", r)
		}
		return len(files(t, s.dir)) == 0
	})
}

// hookProgram STATE CRIU NS IMAGES is one action of a hook: it starts what is to
// last and ends.
var hookProgram = nstest.Program("warden.hook", func(args []string) {
	dir, err := state.Open(args[0])
	check(err)
	criu, err := state.Lookup(number(args[1]))
	check(err)
	ns, err := nsenter.OpenPath(args[2])
	check(err)
	w, err := Start(criu, dir)
	check(err)
	_, err = w.Hold(context.Background(), HoldRequest{Namespace: ns})
	check(err)
	check(w.SetAside(args[3], []string{msgImage}))
	fmt.Println(w.PID())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
})

// What a hook process began lasts when it is killed, for the next to end.
func TestHookProcesses(t *testing.T) {
	ns, dir, c, img := nstest.Fresh(t), tempState(t), newCounters(t), imagesDir(t, msgImage)
	startFamily(t, ns, c, 0, 0)
	startFamily(t, nil, c, 1, 0)
	criu := startCRIU(t, dir)
	first := nstest.Start(t, nil, hookProgram, dir.Path(), fmt.Sprint(criu.PID()),
		fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()), img)
	line, err := first.Stdout.ReadString('\n')
	must(t, err)
	first.Kill()
	w := criu.start(t, dir)
	if w.PID() != number(line) {
		t.Errorf("process %d, the first hook started %s", w.PID(), line)
	}
	c.mustStand(t, 1, 0)
	if _, err := w.Let(); err != nil {
		t.Error(err)
	}
	c.mustRun(t, 0)
	mustBeAside(t, w, msgImage)
	must(t, w.End())
	if w.process.Alive() {
		t.Error("it runs after its end")
	}
	mustContain(t, img, msgImage)
	mustBeEmpty(t, dir)
}

func TestStartByManyAtOnce(t *testing.T) {
	dir := tempState(t)
	criu := startCRIU(t, dir)
	var group sync.WaitGroup
	pids := make([]int, 6)
	for i := range pids {
		group.Go(func() {
			if w, err := Start(criu.id, dir); err != nil {
				t.Error(err)
			} else {
				pids[i] = w.PID()
			}
		})
	}
	group.Wait()
	if slices.Min(pids) != slices.Max(pids) {
		t.Errorf("processes %v, want one", pids)
	}
	must(t, criu.start(t, dir).End())
	mustBeEmpty(t, dir)
}

// A warden is nobody's burden: no descriptors, session, directory or environment
// of a hook's.
func TestWardensSurroundings(t *testing.T) {
	t.Setenv("IPC_CR_TEST_SECRET", "x")
	inherited, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
	must(t, err)
	defer unix.Close(inherited)
	ns, dir := nstest.Fresh(t), tempState(t)
	criu := startCRIU(t, dir)
	var w *Warden
	must(t, ns.Run(func() error { w = criu.start(t, dir); return nil }))
	proc := fmt.Sprintf("/proc/%d/", w.PID())
	kinds := map[string]int{}
	fds, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(proc + "fd/" + fd.Name())
		if errors.Is(err, unix.ENOENT) {
			continue // the connection of Start
		}
		must(t, err)
		kinds[strings.SplitN(target, ":[", 2)[0]]++
	}
	delete(kinds, "socket") // the listener, and perhaps that connection
	delete(kinds, "anon_inode")
	for _, own := range []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[pidfd]", "pidfd"} {
		delete(kinds, own)
	}
	if kinds["/dev/null"] != 3 || kinds[dir.Path()] != 1 || len(kinds) != 2 {
		t.Errorf("descriptors %v, want stdio and the state directory", kinds)
	}
	if session, err := unix.Getsid(w.PID()); err != nil || session != w.PID() {
		t.Errorf("session %d, %v, want its own", session, err)
	}
	own, err := os.Readlink("/proc/self/ns/ipc")
	must(t, err)
	for link, want := range map[string]string{"cwd": "/", "ns/ipc": own} {
		if got, err := os.Readlink(proc + link); err != nil || got != want {
			t.Errorf("%s is %s, %v, want %s", link, got, err, want)
		}
	}
	for file, want := range map[string]string{"environ": "GODEBUG=containermaxprocs=0\x00", "cmdline": processName + "\x00", "comm": processName + "\n"} {
		if got, err := os.ReadFile(filepath.Join(proc, file)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", file, got, err, want)
		}
	}
}
