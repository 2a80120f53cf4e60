package images_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestSaveAndLoad(t *testing.T) {
	dir := newDir(t, 1, 3)
	want := []string{"ipc-cr-1.json", "ipc-cr-2.json", "ipcns-msg-1.img", "ipcns-var-1.img", "ipcns-var-2.img"}
	if diff := diff(want, listing(t, dir.Path())); diff != "" {
		t.Error(diff)
	}
	for number, want := range map[int64]generation{1: 1, 2: 3} {
		if got, err := load(dir, number); got != want || err != nil {
			t.Errorf("number %d: generation %d, %v, want %d", number, got, err, want)
		}
	}
	for _, name := range want {
		info := must[os.FileInfo](t)(os.Stat(filepath.Join(dir.Path(), name)))
		if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || int(stat.Uid) != os.Geteuid() {
			t.Errorf("%s: mode %v, uid %d", name, info.Mode(), stat.Uid)
		}
	}
}

func TestFilesBelongToTheGivenRoot(t *testing.T) {
	nstest.Require(t, "root")
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := newDir(t)
	stage := dir.Stage(1, 100000, 100001)
	if err := errors.Join(generation(1).files(stage), stage.Describe(generation(1).manifest(1), nil), stage.Commit()); err != nil {
		t.Fatal(err)
	}
	for _, name := range listing(t, dir.Path()) {
		info := must[os.FileInfo](t)(os.Stat(filepath.Join(dir.Path(), name)))
		if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || stat.Uid != 100000 || stat.Gid != 100001 {
			t.Errorf("%s: mode %v, owner %d:%d", name, info.Mode(), stat.Uid, stat.Gid)
		}
	}
}

func TestJSONFileAloneBelongsToTheGivenRoot(t *testing.T) {
	nstest.Require(t, "root")
	dir := newDir(t)
	if err := dir.Stage(1, 100000, 100001).CommitManifest(generation(1).manifest(1), nil); err != nil {
		t.Fatal(err)
	}
	info := must[os.FileInfo](t)(os.Stat(filepath.Join(dir.Path(), images.ManifestName(1))))
	if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || stat.Uid != 100000 || stat.Gid != 100001 {
		t.Errorf("mode %v, owner %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
}

// What is written may turn out to be nothing that the namespace's root may read.
func TestUncommittedIsTheWritersAlone(t *testing.T) {
	nstest.Require(t, "root")
	dir := newDir(t)
	stage := dir.Stage(1, 100000, 100001)
	if err := errors.Join(generation(1).files(stage), stage.Describe(generation(1).manifest(1), nil)); err != nil {
		t.Fatal(err)
	}
	var held []*os.File
	for _, name := range listing(t, dir.Path()) {
		file := must[*os.File](t)(os.Open(filepath.Join(dir.Path(), name)))
		defer file.Close()
		held = append(held, file)
		info := must[os.FileInfo](t)(file.Stat())
		if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || stat.Uid != 0 || stat.Gid != uint32(os.Getegid()) || info.Size() == 0 {
			t.Errorf("%s: mode %v, owner %d:%d, %d bytes", name, info.Mode(), stat.Uid, stat.Gid, info.Size())
		}
	}
	stage.Discard()
	for _, file := range held {
		if rest := must[[]byte](t)(io.ReadAll(file)); len(rest) > 0 {
			t.Errorf("%s: %d bytes are left for who has it open", file.Name(), len(rest))
		}
	}
	if len(held) != 3 {
		t.Errorf("%d files, want 3", len(held))
	}
}

func TestDiscard(t *testing.T) {
	dir := newDir(t, 1)
	before := listing(t, dir.Path())
	stage := dir.Stage(1, os.Geteuid(), os.Getegid())
	if err := generation(2).files(stage); err != nil {
		t.Fatal(err)
	}
	if len(listing(t, dir.Path())) != len(before)+2 {
		t.Errorf("staged: %q", listing(t, dir.Path()))
	}
	stage.Discard()
	if diff := diff(before, listing(t, dir.Path())); diff != "" {
		t.Error(diff)
	}
	if got, err := load(dir, 1); got != 1 || err != nil {
		t.Errorf("generation %d, %v, want 1", got, err)
	}
}

func TestCreateTwice(t *testing.T) {
	stage := newDir(t).Stage(1, os.Geteuid(), os.Getegid())
	defer stage.Discard()
	must[*images.StageFile](t)(stage.Create(images.MsgKind))
	if _, err := stage.Create(images.MsgKind); !errors.Is(err, unix.EEXIST) {
		t.Errorf("got %v, want EEXIST", err)
	}
}

// A change of a directory, as inotify(7) tells it.
type change struct {
	What uint32
	Name string
}

const unlinked, named, closed = unix.IN_DELETE, unix.IN_MOVED_TO, unix.IN_CLOSE_WRITE

// What was there is taken apart before anything new gets a name, and each step is
// in the order in which no moment passes for a checkpoint.
func TestCommitOrder(t *testing.T) {
	dir := newDir(t, 1)
	foreign := []string{"ipcns-sem-1.img", "ipcns-shm-1.img", "ipcns-var-2.img", "pages-1.img"}
	for _, name := range foreign {
		write(t, dir, name, nil)
	}
	changes := watch(t, dir.Path())
	if err := generation(2).save(dir, 1); err != nil {
		t.Fatal(err)
	}
	got := changes()
	closes := []change{
		{closed, "ipcns-var-1.img.ipc-cr-tmp"}, {closed, "ipcns-msg-1.img.ipc-cr-tmp"}, {closed, "ipc-cr-1.json.ipc-cr-tmp"},
	}
	want := append(closes,
		change{unlinked, "ipc-cr-1.json"}, change{unlinked, "ipcns-var-1.img"},
		change{unlinked, "ipcns-msg-1.img"}, change{unlinked, "ipcns-sem-1.img"}, change{unlinked, "ipcns-shm-1.img"},
		change{named, "ipcns-msg-1.img"}, change{named, "ipcns-var-1.img"}, change{named, "ipc-cr-1.json"},
	)
	if diff := diff(want, got); diff != "" {
		t.Errorf("changes (-want +seen):\n%s", diff)
	}
	if names := listing(t, dir.Path()); !slices.Contains(names, "ipcns-var-2.img") || !slices.Contains(names, "pages-1.img") {
		t.Errorf("left: %q", names)
	}
}

// Whatever prefix of the changes a kill leaves is the old checkpoint, the new
// one, or none.
func TestKilledBetweenAnyTwoChanges(t *testing.T) {
	for _, c := range [][2]generation{{1, 2}, {1, 3}, {3, 1}, {3, 6}, {-1, 1}, {-1, 3}} {
		from, to := c[0], c[1]
		dir := newDir(t)
		if from > 0 {
			dir = newDir(t, from)
		}
		old := content(t, dir)
		changes := watch(t, dir.Path())
		if err := to.save(dir, 1); err != nil {
			t.Fatal(err)
		}
		seen := slices.DeleteFunc(changes(), func(c change) bool { return c.What == closed })
		for n := range len(seen) + 1 {
			replay(t, old, content(t, dir), seen[:n], func(dir *images.Dir) {
				checkOneOf(t, dir, from, to)
				if got, err := load(dir, 1); n == len(seen) && got != to || n == 0 && err == nil && got != from {
					t.Errorf("%d to %d, %d changes: generation %d, %v", from, to, n, got, err)
				}
			})
		}
	}
}

// checkOneOf wants a directory to hold a generation whole, or nothing that
// passes for one.
func checkOneOf(t *testing.T, dir *images.Dir, allowed ...generation) {
	t.Helper()
	got, err := load(dir, 1)
	if errors.Is(err, errNoCheckpoint) {
		return
	}
	if err != nil || !slices.Contains(allowed, got) {
		t.Errorf("%q pass for a checkpoint: generation %d, %v, want one of %d", listing(t, dir.Path()), got, err, allowed)
	}
}

// replay makes a directory with the old files and applies the changes to it.
func replay(t *testing.T, old, fresh map[string][]byte, changes []change, check func(*images.Dir)) {
	t.Helper()
	dir := newDir(t)
	for name, data := range old {
		write(t, dir, name, data)
	}
	for _, c := range changes {
		if c.What == unlinked {
			if err := os.Remove(filepath.Join(dir.Path(), c.Name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, dir, c.Name, fresh[c.Name])
	}
	check(dir)
}

func content(t testing.TB, dir *images.Dir) map[string][]byte {
	files := map[string][]byte{}
	for _, name := range listing(t, dir.Path()) {
		files[name] = must[[]byte](t)(os.ReadFile(filepath.Join(dir.Path(), name)))
	}
	return files
}

func write(t testing.TB, dir *images.Dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir.Path(), name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// watch returns a function that tells what has changed in a directory since.
func watch(t testing.TB, path string) func() []change {
	t.Helper()
	fd := must[int](t)(unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC))
	must[int](t)(unix.InotifyAddWatch(fd, path, unlinked|named|closed))
	return func() (changes []change) {
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for b := buf[:must[int](t)(unix.Read(fd, buf))]; len(b) > 0; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
			name := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+event.Len]
			changes = append(changes, change{event.Mask, string(bytes.TrimRight(name, "\x00"))})
			b = b[unix.SizeofInotifyEvent+event.Len:]
		}
		return changes
	}
}

// An error at any of the renames and unlinks leaves no mixture: here one that
// makes a directory stand in the way.
func TestCommitFails(t *testing.T) {
	for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-1.img", "ipc-cr-1.json", "ipcns-sem-1.img"} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t, 1)
			path := filepath.Join(dir.Path(), name)
			os.Remove(path)
			if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
				t.Fatal(err)
			}
			err := generation(2).save(dir, 1)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error that names %s", err, name)
			}
			dir.Close()
			for _, left := range listing(t, dir.Path()) {
				if strings.HasSuffix(left, "-tmp") {
					t.Errorf("left: %s", left)
				}
			}
			again := must[*images.Dir](t)(images.OpenDir(dir.Path()))
			defer again.Close()
			_, err = load(again, 1)
			if name == "ipcns-sem-1.img" { // of which generations know nothing
				wantError(t, err, `"ipcns-sem-1.img" does not agree with ipc-cr-1.json: is not in it`)
			} else {
				wantError(t, err, path+" is a directory, not a regular file")
			}
		})
	}
}
