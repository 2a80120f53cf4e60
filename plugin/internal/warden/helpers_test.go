package warden

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const (
	deadline = 30 * time.Second
	msgImage = "ipcns-msg-1.img"
	varImage = "ipcns-var-1.img"
)

// until polls for a state.
func until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not reached in %v: %s", deadline, what)
		}
	}
}

func tempState(t testing.TB) *state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// files lists all but the log.
func files(t testing.TB, dir *state.Dir) []string {
	t.Helper()
	names, err := dir.Names()
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == eventlog.FileName })
	slices.Sort(names)
	return names
}

func recoverNow(dir *state.Dir) state.Recovery {
	names, err := dir.Names()
	if err != nil {
		panic(err)
	}
	return Recover(context.Background(), dir, names, SettleTime)
}

func mustBeEmpty(t testing.TB, dir *state.Dir) {
	t.Helper()
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left in the state directory: %v", left)
	}
}

// counters are what the programs count in.
type counters struct{ nstest.Counters }

func newCounters(t testing.TB) counters { return counters{nstest.NewCounters(t)} }

// mustRun waits until each slot has been counted on.
func (c counters) mustRun(t testing.TB, slots ...int) {
	t.Helper()
	for _, i := range slots {
		start := c.Slot[i].Load()
		until(t, fmt.Sprintf("slot %d goes on from %d", i, start), func() bool { return c.Slot[i].Load() > start+2 })
	}
}

// mustStand fails if a slot is counted on while another one is, many times.
func (c counters) mustStand(t testing.TB, beside int, slots ...int) {
	t.Helper()
	var before []uint64
	for _, i := range slots {
		before = append(before, c.Slot[i].Load())
	}
	start := c.Slot[beside].Load()
	until(t, "the counter beside goes on", func() bool { return c.Slot[beside].Load() > start+20 })
	for n, i := range slots {
		if now := c.Slot[i].Load(); now != before[n] {
			t.Errorf("slot %d went from %d to %d", i, before[n], now)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	check(err)
	return n
}

// familyProgram FILE SLOT DEPTH says its pid, counts in SLOT a thousand times a
// second, and has a child that does the same in the next slot, DEPTH times.
var familyProgram = nstest.Program("warden.family", func(args []string) {
	c, slot, depth := nstest.OpenCounters(args[0]), number(args[1]), number(args[2])
	fmt.Println(os.Getpid())
	if depth > 0 {
		child := exec.Command("/proc/self/exe", args[0], strconv.Itoa(slot+1), strconv.Itoa(depth-1))
		child.Env = append(os.Environ(), "IPC_CR_NSTEST_PROGRAM=warden.family")
		leash, held, err := os.Pipe() // ends with us
		check(err)
		child.ExtraFiles = []*os.File{leash}
		child.Stdout = os.Stdout
		check(child.Start())
		defer runtime.KeepAlive(held)
	}
	for {
		c.Slot[slot].Add(1)
		time.Sleep(time.Millisecond)
	}
})

// startFamily returns the pids, the eldest's first.
func startFamily(t testing.TB, ns *nsenter.Namespace, c counters, slot, depth int) (*nstest.Process, []int) {
	t.Helper()
	p := nstest.Start(t, ns, familyProgram, c.Path, strconv.Itoa(slot), strconv.Itoa(depth))
	var pids []int
	for range depth + 1 {
		line, err := p.Stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, number(line))
	}
	for i := range depth + 1 {
		c.mustRun(t, slot+i)
	}
	return p, pids
}

// fakeCRIU stands for a CRIU process.
type fakeCRIU struct {
	*nstest.Process
	id state.Process
}

func startCRIU(t testing.TB, dir *state.Dir) fakeCRIU {
	t.Helper()
	p, _ := startFamily(t, nil, newCounters(t), 0, 0)
	return fakeCRIU{p, lookup(t, p.PID())}
}

func lookup(t testing.TB, pid int) state.Process {
	t.Helper()
	p, err := state.Lookup(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start starts the warden, which has ended before the state directory is
// removed.
func (c fakeCRIU) start(t testing.TB, dir *state.Dir) *Warden {
	t.Helper()
	w, err := Start(c.id, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		until(t, "the warden has ended", func() bool { return !w.process.Alive() })
	})
	return w
}

// killed kills the warden.
func killed(t testing.TB, w *Warden) {
	t.Helper()
	if err := unix.Kill(w.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the warden is dead", func() bool { return !w.process.Alive() })
}

func mustHold(t testing.TB, w *Warden, r HoldRequest) Held {
	t.Helper()
	held, err := w.Hold(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustSay wants an error with this text.
func mustSay(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// imagesDir makes a directory of files that hold their own names.
func imagesDir(t testing.TB, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	return dir
}

// mustContain compares a directory's names, and the content of regular files
// with the name that they were made under.
func mustContain(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
		if !entry.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil || string(content) != strings.TrimSuffix(entry.Name(), Suffix) {
			t.Errorf("%s holds %q, %v", entry.Name(), content, err)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has %v, want %v", dir, got, want)
	}
}

// mustBeAside looks at what a warden has noted: its successor goes by it.
func mustBeAside(t testing.TB, w *Warden, want ...string) {
	t.Helper()
	content, err := w.dir.Read(noteName(w.criu))
	must(t, err)
	n, err := parseNote(content)
	must(t, err)
	var got []string
	if n.Images != nil {
		got = n.Images.Names
	}
	if !slices.Equal(got, want) {
		t.Errorf("aside %v, want %v", got, want)
	}
}
