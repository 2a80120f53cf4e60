package plugin_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// oddFile is a file that is none of ours although it has one of our names.
type oddFile struct {
	what string // as errors call it
	make func(path string) error
}

var oddFiles = []oddFile{
	{"a FIFO", func(path string) error { return unix.Mkfifo(path, 0o600) }},
	{"a symbolic link", func(path string) error { return os.Symlink("/proc/self/cmdline", path) }},
	{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }},
	{"a socket", func(path string) error {
		address := &net.UnixAddr{Name: path, Net: "unix"}
		listener, err := net.ListenUnix("unix", address)
		if err != nil {
			return err
		}
		listener.SetUnlinkOnClose(false)
		return listener.Close()
	}},
	{"a device", func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }}, // zero
}

// put puts an odd file in the place of a path; false if this user may not.
func (f *oddFile) put(t *testing.T, path string) bool {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	err := f.make(path)
	if os.IsPermission(err) && f.what == "a device" {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

var ourNames = []string{images.FileName(images.MsgKind, 1), images.FileName(images.VarKind, 1), images.ManifestName(1)}

// Only regular files are read, and nothing is waited for.
func TestOddFilesAtRestore(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	was := stateOf(t, ns)
	for _, odd := range oddFiles {
		for _, name := range ourNames {
			dir := saved(t, aQueue(7, 0x77, "a"))
			path := filepath.Join(dir, name)
			if !odd.put(t, path) {
				continue
			}
			_, err := tryLoad(t, ns, dir, plugin.Fail)
			wantFailure(t, err, path+" is "+odd.what+", not a regular file")
			wantSame(t, ns, was)
		}
	}
}

// A file of any type that has one of our names is a checkpoint's until --force
// says otherwise. What a symbolic link names is never touched.
func TestOddFilesAtCheckpoint(t *testing.T) {
	nstest.Require(t, "userns")
	ns, q := nstest.Fresh(t), aQueue(7, 0x77, "a")
	fill(t, ns, q)
	for _, odd := range oddFiles {
		for _, name := range ourNames {
			dir := t.TempDir()
			if !odd.put(t, filepath.Join(dir, name)) {
				continue
			}
			_, err := trySave(t, ns, dir)
			wantFailure(t, err, dir, "holds images of namespace number 1 already", name, "--ns-id", "--force")
			_, err = tryFrozen(t, ns, dir) // with Force
			if odd.what == "a directory" {
				wantFailure(t, err, filepath.Join(dir, name), "is a directory")
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			wantImage(t, dir, q)
		}
	}
}

// The temporaries of a killed ipc-cr go, whatever somebody made of them.
func TestOddTemporaries(t *testing.T) {
	nstest.Require(t, "userns")
	ns, q := nstest.Fresh(t), aQueue(7, 0x77, "a")
	fill(t, ns, q)
	victim := filepath.Join(t.TempDir(), "victim")
	writeFile(t, victim, "precious")
	odds := append(oddFiles[:len(oddFiles):len(oddFiles)],
		oddFile{"a link to a file", func(path string) error { return os.Symlink(victim, path) }},
		oddFile{"a hard link", func(path string) error { return os.Link(victim, path) }},
		oddFile{"half a file", func(path string) error { return os.WriteFile(path, []byte("half"), 0o644) }})
	for _, odd := range odds {
		dir := t.TempDir()
		temporary := imagePath(dir, images.MsgKind) + ".ipc-cr-tmp"
		if !odd.put(t, temporary) {
			continue
		}
		_, err := trySave(t, ns, dir)
		if odd.what == "a directory" {
			wantFailure(t, err, "remove the leftover "+temporary)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		wantImage(t, dir, q)
		if text, err := os.ReadFile(victim); string(text) != "precious" {
			t.Fatalf("%s: the file it named holds %q, %v", odd.what, text, err)
		}
	}
}

// --force replaces a checkpoint, its files that are no longer needed included,
// and leaves those of other numbers alone.
func TestForce(t *testing.T) {
	nstest.Require(t, "userns")
	dir, old := t.TempDir(), nstest.Fresh(t)
	q := aQueue(7, 0x77, "a")
	fill(t, old, q)
	save(t, old, dir)
	second := plugin.CheckpointOptions{Kinds: kinds, Namespace: old, Dir: dir, Number: 2}
	if _, err := plugin.Checkpoint(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	empty := nstest.Fresh(t)
	_, err := trySave(t, empty, dir)
	wantFailure(t, err, "holds images of namespace number 1 already (ipc-cr-1.json, ipcns-msg-1.img, ipcns-var-1.img)")
	second.Namespace, second.Number, second.Force = empty, 1, true
	if _, err := plugin.Checkpoint(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := "[ipc-cr-1.json ipc-cr-2.json ipcns-msg-2.img ipcns-var-1.img ipcns-var-2.img]"; want != fmt.Sprint(names) {
		t.Errorf("files %v, want %s", names, want)
	}
	_, err = tryLoad(t, empty, dir, plugin.Fail)
	wantFailure(t, err, dir, "images of 2 namespaces", "1, 2", "--ns-id")
	report, err := plugin.Restore(t.Context(), plugin.RestoreOptions{Kinds: kinds, Namespace: empty, Dir: dir, Number: 2})
	if err != nil || report.Number != 2 {
		t.Errorf("report %+v, %v", report, err)
	}
	wantQueues(t, empty, q)
}

// Who can write images decides what a restore makes of them: the checkpoint warns
// of such a directory, and the restore, which may be of somebody else's copy.
func TestWritableDirectory(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	for mode, warned := range map[os.FileMode]int{0o700: 0, 0o755: 0, 0o777: 1, 0o777 | os.ModeSticky: 1} {
		dir := filepath.Join(t.TempDir(), "images")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		saved, restored := save(t, ns, dir).Warnings, load(t, nstest.Fresh(t), dir, plugin.Fail).Warnings
		if len(saved) != warned || !slices.Equal(saved, restored) {
			t.Errorf("mode %v: the checkpoint warns %q, the restore %q", mode, saved, restored)
		}
	}
}
