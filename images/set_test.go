package images_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func TestSetSelection(t *testing.T) {
	dir := newDir(t, 1, 2)
	_, err := dir.Set(images.Auto)
	wantError(t, err, dir.Path(), "2 namespaces", "1, 2", "--ns-id")
	for _, n := range []int64{3, -2, 1<<32 + 1} {
		_, err := dir.Set(n)
		if wantError(t, err, "only of 1, 2"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: %v", n, err)
		}
	}
	for n, want := range map[int64]generation{1: 1, 2: 2} {
		if got, err := load(dir, n); got != want || err != nil {
			t.Errorf("%d: generation %d, %v", n, got, err)
		}
	}
	_, err = newDir(t).Set(images.Auto)
	if wantError(t, err, "no image", "ipcns-var-<N>.img"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	only := newDir(t)
	if err := generation(1).save(only, 42); err != nil {
		t.Fatal(err)
	}
	if set := must[*images.Set](t)(only.Set(images.Auto)); set.Number != 42 || set.Manifest == nil || set.Dir != only {
		t.Errorf("%+v", set)
	}
}

func TestIncompleteSet(t *testing.T) {
	for _, name := range []string{"ipcns-msg-1.img", "ipcns-sem-1.img", "ipcns-shm-1.img"} {
		dir := newDir(t)
		write(t, dir, name, nil)
		for _, n := range []int64{1, images.Auto} {
			_, err := dir.Set(n)
			wantError(t, err, "incomplete", name+" without ipcns-var-1.img")
		}
	}
}

// CRIU's own directories have no JSON file, and many other files.
func TestSetOfCRIU(t *testing.T) {
	dir := must[*images.Dir](t)(images.OpenDir(filepath.Join("testdata", "criu", "plain")))
	defer dir.Close()
	set := must[*images.Set](t)(dir.Set(images.Auto))
	if set.Manifest != nil || set.Number != 9 {
		t.Errorf("%+v", set)
	}
	data := must[[]byte](t)(readAll(set, images.MsgKind))
	if !bytes.Equal(data, criuImages(t, images.MsgKind)["plain"]) {
		t.Error("other bytes")
	}
	set.Checked(images.MsgKind, 0, 0)
	if err := set.Ready(); err != nil {
		t.Errorf("without a JSON file: %v", err)
	}
	if _, err := readAll(set, images.SemKind); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestUnopened(t *testing.T) {
	dir := newDir(t, 1)
	os.Remove(filepath.Join(dir.Path(), "ipc-cr-1.json"))
	write(t, dir, "ipcns-shm-1.img", nil)
	set := must[*images.Set](t)(dir.Set(1))
	must[[]byte](t)(readAll(set, images.VarKind))
	want := []string{"ipcns-msg-1.img", "ipcns-shm-1.img"}
	if diff := diff(want, set.Unopened()); diff != "" {
		t.Error(diff)
	}
}

// How to go on is said wherever images and JSON file disagree.
func TestChangedImages(t *testing.T) {
	const remedy = "remove ipc-cr-1.json"
	for name, c := range map[string]struct {
		change func(path string) error
		want   []string
	}{
		"a byte": {func(path string) error {
			return patch(path+"/ipcns-msg-1.img", func(b []byte) []byte { b[len(b)-100] ^= 1; return b })
		}, []string{"ipcns-msg-1.img", "CRC-32C"}},
		"a byte more": {func(path string) error {
			return patch(path+"/ipcns-msg-1.img", func(b []byte) []byte { return append(b, 0) })
		}, []string{"ipcns-msg-1.img", "bytes instead of"}},
		"sysctls": {func(path string) error {
			return patch(path+"/ipcns-var-1.img", func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, []string{"ipcns-var-1.img", "CRC-32C"}},
		"a file less": {func(path string) error { return os.Remove(path + "/ipcns-msg-1.img") }, []string{"ipcns-msg-1.img", "is missing"}},
		"a file more": {func(path string) error { return os.WriteFile(path+"/ipcns-sem-1.img", nil, 0o600) }, []string{"ipcns-sem-1.img", "is not in it"}},
		"a name outside": {func(path string) error {
			return patch(path+"/ipc-cr-1.json", func(b []byte) []byte {
				return bytes.Replace(b, []byte("ipcns-msg-1.img"), []byte(`../ipcns-msg-1.img\u001b`), 1)
			})
		}, []string{"ipcns-msg-1.img", "is not in it"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t, 1)
			if err := c.change(dir.Path()); err != nil {
				t.Fatal(err)
			}
			_, err := load(dir, 1)
			wantError(t, err, append(c.want, dir.Path(), remedy)...)
			os.Remove(filepath.Join(dir.Path(), "ipc-cr-1.json"))
			if _, err := dir.Set(1); err != nil {
				t.Errorf("as the message says: %v", err)
			}
		})
	}
}

func patch(path string, change func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(b), 0o600)
}

// A name that the JSON file makes up is quoted, and is not looked for.
func TestManifestNamesAreNotOpened(t *testing.T) {
	dir := newDir(t, 3)
	fifo := filepath.Join(dir.Path(), "..", "fifo")
	if err := special["a FIFO"](t, fifo); err != nil {
		t.Fatal(err)
	}
	if err := patch(filepath.Join(dir.Path(), "ipc-cr-1.json"), func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"files": [`), []byte(`"files": [{"name": "../fifo\n", "size": 0, "crc32c": "00000000"},`), 1)
	}); err != nil {
		t.Fatal(err)
	}
	err := atOnce(t, func() error { _, err := dir.Set(1); return err })
	wantError(t, err, `"../fifo\n"`, "is missing")
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is not one line", err)
	}
}

func TestManifestOfAnotherNumber(t *testing.T) {
	dir := newDir(t, 1)
	text := must[[]byte](t)(os.ReadFile(filepath.Join(dir.Path(), "ipc-cr-1.json")))
	write(t, dir, "ipc-cr-1.json", bytes.Replace(text, []byte(`"ns_number": 1`), []byte(`"ns_number": 2`), 1))
	_, err := dir.Set(1)
	wantError(t, err, "ipc-cr-1.json", "namespace number 2")
}

func TestSumReader(t *testing.T) {
	data := pattern(10000)
	sum := &images.SumReader{R: &zeros{r: bytes.NewReader(data)}}
	buf := make([]byte, 7)
	for range 3 {
		must[int](t)(sum.Read(buf))
	}
	if want := images.Sum(images.Checksum(0, data[:21])); sum.Size != 21 || sum.CRC != want {
		t.Errorf("%d bytes, %s, want 21, %s", sum.Size, sum.CRC, want)
	}
}

func TestFileNames(t *testing.T) {
	for name, want := range map[string]bool{
		"ipcns-msg-1.img": true, "ipcns-var-0.img": true, "ipcns-shm-4294967295.img": true, "ipcns-sem-12.img": true,
		"ipcns-msg-01.img": false, "ipcns-msg-4294967296.img": false, "ipcns-msg--1.img": false, "ipcns-msg-+1.img": false,
		"ipcns-msg-.img": false, "ipcns-msg-1": false, "ipcns-msg-1.img.ipc-cr-tmp": false, "ipcns-utsns-1.img": false, "./ipcns-msg-1.img": false, "": false,
	} {
		kind, n, ok := images.ParseFileName(name)
		if ok != want || ok && images.FileName(kind, n) != name {
			t.Errorf("%q: %q, %d, %t", name, kind, n, ok)
		}
	}
	for name, want := range map[string]bool{
		"ipc-cr-1.json": true, "ipc-cr-4294967295.json": true, "ipc-cr-01.json": false, "ipc-cr-4294967296.json": false,
		"1.json": false, "ipc-cr-1": false, "ipc-cr-ipc-cr-1.json": false, "": false,
	} {
		if n, ok := images.ParseManifestName(name); ok != want || ok && images.ManifestName(n) != name {
			t.Errorf("%q: %d, %t", name, n, ok)
		}
	}
}
