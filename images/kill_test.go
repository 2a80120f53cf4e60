package images_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

var progSaver = nstest.Program("saver", saver)

// saver writes checkpoints without end: over each other in the directory given,
// or, with "fresh", each into a new one below it, which it names beforehand.
func saver(args []string) {
	path, first := args[0], must[int](nil)(strconv.Atoi(args[2]))
	for g := generation(first); ; g++ {
		target := path
		if args[1] == "fresh" {
			target = filepath.Join(path, strconv.Itoa(int(g)))
		}
		dir := must[*images.Dir](nil)(images.MakeDir(target))
		if err := g.save(dir, 1); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		dir.Close()
		if g == generation(first) {
			fmt.Println("running")
		}
	}
}

// kills is how many savers are killed in each of the two ways.
const kills = 100

func TestKilledOverAnOldCheckpoint(t *testing.T) {
	path := memory(t)
	last, states := generation(1), map[string]int{}
	nstest.Try(t, func() error {
		for range kills {
			killSaver(t, path, "over", last)
			dir := must[*images.Dir](t)(images.OpenDir(path))
			states[state(t, dir)]++
			got, err := load(dir, 1)
			if err != nil && !errors.Is(err, errNoCheckpoint) || err == nil && got < last {
				t.Errorf("generation %d after %d, %v", got, last, err)
			}
			last = max(got, last) + 1
			recovers(t, dir, last)
		}
		t.Logf("what was left: %v", states)
		return inTheMiddle(states)
	})
}

// inTheMiddle wants that kills have left something else than a whole checkpoint.
func inTheMiddle(states map[string]int) error {
	for left := range states {
		if left != "JMV" && left != "JV" {
			return nil
		}
	}
	return errors.New("no kill came in the middle of a save")
}

func TestKilledInAFreshDirectory(t *testing.T) {
	path, states := memory(t), map[string]int{}
	nstest.Try(t, func() error {
		for n := range kills {
			under := filepath.Join(path, fmt.Sprint(n))
			if err := os.Mkdir(under, 0o700); err != nil {
				t.Fatal(err)
			}
			killSaver(t, under, "fresh", 1)
			names := listing(t, under)
			g := generation(len(names)) // they are counted from 1
			dir := must[*images.Dir](t)(images.OpenDir(filepath.Join(under, fmt.Sprint(int(g)))))
			states[state(t, dir)]++
			checkOneOf(t, dir, g)
			recovers(t, dir, g)
			os.RemoveAll(under)
		}
		t.Logf("what was left: %v", states)
		return inTheMiddle(states)
	})
}

// memory returns a directory whose fsync takes no time, so that a kill hits all
// steps alike, or where there is none any directory.
func memory(t testing.TB) string {
	t.Helper()
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) != nil || st.Type != unix.TMPFS_MAGIC {
		return t.TempDir()
	}
	path, err := os.MkdirTemp("/dev/shm", "ipc-cr-images-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	return path
}

func killSaver(t *testing.T, path, how string, first generation) {
	t.Helper()
	p := nstest.Start(t, nil, progSaver, path, how, strconv.Itoa(int(first)))
	if line, err := p.Stdout.ReadString('\n'); line != "running\n" {
		t.Fatalf("the saver says %q, %v", line, err)
	}
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // any moment will do
	p.Kill()
}

// state describes which files a kill has left.
func state(t *testing.T, dir *images.Dir) string {
	var b strings.Builder
	for _, name := range listing(t, dir.Path()) {
		stem, temp := strings.CutSuffix(name, ".ipc-cr-tmp")
		for short, long := range map[string]string{"J": "ipc-cr-1.json", "V": "ipcns-var-1.img", "M": "ipcns-msg-1.img"} {
			switch {
			case stem != long:
			case temp:
				b.WriteString(strings.ToLower(short))
			default:
				b.WriteString(short)
			}
		}
	}
	return b.String()
}

// recovers saves another checkpoint as the next command would.
func recovers(t *testing.T, dir *images.Dir, g generation) {
	t.Helper()
	err := g.save(dir, 1)
	got, loadErr := load(dir, 1)
	dir.Close() // its lock is a file
	if err != nil {
		t.Fatal(err)
	}
	if got != g || loadErr != nil {
		t.Errorf("generation %d, %v, want %d", got, loadErr, g)
	}
	want := 2
	if g.hasQueues() {
		want = 3
	}
	if names := listing(t, dir.Path()); len(names) != want {
		t.Errorf("generation %d: %q", g, names)
	}
}
