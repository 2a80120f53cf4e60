package inspect_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/images/inspect"
)

// A directory and every form of archive give the same calls.
func TestSameCallsInEveryForm(t *testing.T) {
	members := checkpoint(t)
	want, err := visit(directoryOf(t, members))
	if err != nil {
		t.Fatal(err)
	}
	if len(want.names) != len(members) || len(want.calls) < 40 {
		t.Fatalf("%d files, %d calls", len(want.names), len(want.calls))
	}
	for form, pack := range packings {
		path := file(t, "checkpoint."+form, pack(t, tarOf(t, members...)))
		got, err := visit(path)
		if diff := cmp.Diff(want.calls, got.calls); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", form, err, diff)
		}
		for i, name := range got.names {
			if want := path + ":" + members[i].name; name != want {
				t.Errorf("file %q, want %q", name, want)
			}
		}
	}
}

// One file gives the calls that the directory has for it, under any name.
func TestOneFile(t *testing.T) {
	for _, kind := range []string{images.VarKind, images.MsgKind} {
		data := criuImage(t, "plain", kind)
		want, _ := visit(file(t, "one.tar", tarOf(t, member{images.FileName(kind, 7), data})))
		path := file(t, images.FileName(kind, 7), data)
		got, err := visit(path)
		if diff := cmp.Diff(want.calls, got.calls); diff != "" || err != nil || got.names[0] != path {
			t.Errorf("%s: %v\n%s", kind, err, diff)
		}
		got, err = visit(file(t, "renamed", data))
		want.calls[0] = strings.Replace(want.calls[0], " 7", " 0", 1)
		want.calls[len(want.calls)-1] = strings.Replace(want.calls[len(want.calls)-1], " 7", " 0", 1)
		if diff := cmp.Diff(want.calls, got.calls); diff != "" || err != nil {
			t.Errorf("%s renamed: %v\n%s", kind, err, diff)
		}
	}
}

func TestCallsOfAQueue(t *testing.T) {
	got, err := visit(file(t, "ipcns-msg-3.img", criuImage(t, "userns", images.MsgKind)))
	want := []string{
		`begin "ipcns-msg" 3`,
		"queue {ID:0 Key:153 UID:7 GID:7 CUID:7 CGID:7 Mode:384 QBytes:16384 QNum:2}",
		"message 1 8 080f161d242b3239", "message 2 9 0910171e252c333a41", "end of queue 0, 17 bytes",
		`end "ipcns-msg" 3`,
	}
	if diff := cmp.Diff(want, got.calls); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// An archive as podman makes it holds much that is not ours, and things that
// only look so.
func TestPodmanArchive(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(header tar.Header, data []byte) {
		header.Size, header.Mode = int64(len(data)), 0o600
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "artifacts/", Typeflag: tar.TypeDir}, nil)
	add(tar.Header{Name: "config.dump"}, []byte(`{"id": 1}`))
	add(tar.Header{Name: "checkpoint/", Typeflag: tar.TypeDir}, nil)
	add(tar.Header{Name: "checkpoint/pages-1.img"}, make([]byte, 1<<20))
	add(tar.Header{Name: "checkpoint/ipcns-shm-3.img", Typeflag: tar.TypeDir}, nil)
	add(tar.Header{Name: "checkpoint/ipcns-msg-4.img", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}, nil)
	add(tar.Header{Name: "checkpoint/ipcns-msg-5.img", Typeflag: tar.TypeFifo}, nil)
	add(tar.Header{Name: "checkpoint/ipc-cr-x.json"}, []byte("{"))
	add(tar.Header{Name: "checkpoint/" + strings.Repeat("long/", 100) + "core-1.img"}, []byte("core"))
	add(tar.Header{Name: "checkpoint/ipcns-msg-9.img"}, criuImage(t, "many", images.MsgKind))
	add(tar.Header{Name: "checkpoint/ipcns-var-9.img"}, criuImage(t, "many", images.VarKind))
	add(tar.Header{Name: "rootfs-diff.tar"}, tarOf(t, member{"ipcns-msg-8.img", nil}))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := file(t, "podman.tar", b.Bytes())
	got, err := visit(path)
	want := []string{path + ":checkpoint/ipcns-msg-9.img", path + ":checkpoint/ipcns-var-9.img"}
	if diff := cmp.Diff(want, got.names); diff != "" || err != nil || len(got.calls) != 4+1+200+2 {
		t.Errorf("%d calls, %v\n%s", len(got.calls), err, diff)
	}
}

// An error of the visitor ends the visit at once, and is what comes out.
func TestVisitorEndsIt(t *testing.T) {
	members := checkpoint(t)
	for _, path := range []string{directoryOf(t, members), file(t, "a.tar", tarOf(t, members...))} {
		whole, err := visit(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= len(whole.calls); n++ {
			r := &recorder{failAt: n}
			if err := inspect.Path(path, r); !errors.Is(err, errVisitor) || len(r.calls) != n {
				t.Errorf("call %d of %d: %v after %d calls", n, len(whole.calls), err, len(r.calls))
			}
		}
	}
}

func TestDirectoryIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"a changed image": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "ipcns-msg-2.img"), criuImage(t, "plain", images.MsgKind), 0o600)
		}, "remove ipc-cr-2.json"},
		"a changed image that is not shown": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "ipcns-sem-1.img"), bytes.Repeat([]byte("was shown"), 100), 0o600)
		}, "CRC-32C"},
		"no sysctls":   {func(dir string) error { return os.Remove(filepath.Join(dir, "ipcns-var-1.img")) }, "incomplete"},
		"a file less":  {func(dir string) error { return os.Remove(filepath.Join(dir, "ipcns-shm-1.img")) }, "is missing"},
		"a FIFO":       {func(dir string) error { return fifo(filepath.Join(dir, "ipcns-msg-1.img")) }, "FIFO"},
		"a FIFO, JSON": {func(dir string) error { return fifo(filepath.Join(dir, "ipc-cr-2.json")) }, "FIFO"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := directoryOf(t, checkpoint(t))
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			if err := atOnce(t, dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func fifo(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }

// atOnce visits a path, which must not wait for anybody.
func atOnce(t *testing.T, path string) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { _, err := visit(path); done <- err }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
		return nil
	}
}

func TestNothingToVisit(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                         "no image",
		pipe:                        "neither a directory nor a regular file",
		"/dev/null":                 "neither a directory nor a regular file",
		filepath.Join(dir, "none"):  "no such file",
		file(t, "empty", nil):       "no image",
		file(t, "7", []byte("7.7")): "read archive",
		file(t, "text", bytes.Repeat([]byte("text"), 1000)):                      "neither a CRIU image",
		file(t, "gz", packings["gzip"](t, bytes.Repeat([]byte("text"), 1000))):   "neither a CRIU image",
		file(t, "tar", tarOf(t, member{"a", []byte("b")})):                       "no image",
		file(t, "json.tar", tarOf(t, checkpoint(t)[0])):                          "no image",
		file(t, "ids.img", []byte("\x19\x43\x56\x54\x21\x43\x21\x43 and so on")): "read archive",
	} {
		r := &recorder{}
		err := atOnce(t, path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || len(r.calls) > 0 {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := visit(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
