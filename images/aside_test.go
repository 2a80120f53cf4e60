package images_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

// asideDir has one image of queues that is set aside, and what goes with it.
func asideDir(t *testing.T) (*images.Dir, string) {
	t.Helper()
	path := t.TempDir()
	for name, text := range map[string]string{
		"ipcns-var-1.img": "vars", "ipcns-msg-1.img" + images.AsideSuffix: "queues",
		"other" + images.AsideSuffix: "", "ipc-cr-1.json" + images.AsideSuffix: "",
	} {
		if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := images.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, path
}

// An image that is set aside is found under its own name; nothing else that ends
// so is one.
func TestAsideIsFound(t *testing.T) {
	dir, _ := asideDir(t)
	names, err := dir.Holds(1)
	if want := []string{"ipcns-msg-1.img", "ipcns-var-1.img"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("holds %q, %v, want %q", names, err, want)
	}
	if aside, err := dir.SetAside(); err != nil || !slices.Equal(aside, []string{"ipcns-msg-1.img"}) {
		t.Errorf("set aside %q, %v", aside, err)
	}
	file, size, err := dir.Open("ipcns-msg-1.img")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if text, err := io.ReadAll(file); string(text) != "queues" || size != 6 || err != nil {
		t.Errorf("read %q of %d, %v", text, size, err)
	}
	if _, _, err := dir.Open("ipc-cr-1.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the JSON file: %v", err)
	}
}

// A link of that name is followed as little as any other.
func TestAsideIsNoLink(t *testing.T) {
	dir, path := asideDir(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(path, "ipcns-msg-2.img"+images.AsideSuffix)); err != nil {
		t.Fatal(err)
	}
	_, _, err := dir.Open("ipcns-msg-2.img")
	wantError(t, err, "ipcns-msg-2.img is a symbolic link, not a regular file")
}

// Sweep leaves it alone; another checkpoint of that number replaces it.
func TestAsideIsReplaced(t *testing.T) {
	dir, path := asideDir(t)
	if err := dir.Sweep(); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(path, "ipcns-msg-1.img"+images.AsideSuffix)
	if _, err := os.Stat(aside); err != nil {
		t.Fatal(err)
	}
	stage := dir.Stage(1, os.Geteuid(), os.Getegid())
	file, err := stage.Create(images.VarKind)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.WriteHeader(file, images.VarKind); err != nil {
		t.Fatal(err)
	}
	if err := stage.Describe(&images.Manifest{Format: images.ManifestFormat, Number: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := stage.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old image: %v", err)
	}
}

// The JSON file that is added to CRIU's images is what a Set wants.
func TestCommitManifest(t *testing.T) {
	dir, path := asideDir(t)
	if err := os.WriteFile(filepath.Join(path, "ipcns-sem-1.img"), []byte("semaphores"), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := dir.Set(images.Auto)
	if err != nil {
		t.Fatal(err)
	}
	set.Checked(images.VarKind, 4, images.Sum(images.Checksum(0, []byte("vars"))))
	sums, err := set.Sums()
	if err != nil || len(sums) != 3 {
		t.Fatalf("%v, %v", sums, err)
	}
	for _, sum := range sums {
		text := map[string]string{"ipcns-msg-1.img": "queues", "ipcns-sem-1.img": "semaphores", "ipcns-var-1.img": "vars"}[sum.Name]
		if sum.Size != int64(len(text)) || sum.CRC32C != images.Sum(images.Checksum(0, []byte(text))) {
			t.Errorf("%+v is not of %q", sum, text)
		}
	}
	stage := dir.Stage(1, os.Geteuid(), os.Getegid())
	m := &images.Manifest{Format: images.ManifestFormat, Number: 1, Files: sums}
	if err := stage.CommitManifest(m, map[string]images.Details{"msgq": {[]byte("[]")}}); err != nil {
		t.Fatal(err)
	}
	if set, err = dir.Set(images.Auto); err != nil || set.Manifest == nil {
		t.Fatalf("%v", err)
	}
	set.Checked(images.VarKind, 5, 0)
	wantError(t, set.Ready(), `"ipcns-var-1.img" does not agree with ipc-cr-1.json: 5 bytes instead of 4`)
	if err := dir.RemoveManifest(1); err != nil {
		t.Fatal(err)
	}
	if set, err = dir.Set(images.Auto); err != nil || set.Manifest != nil {
		t.Errorf("%v, %v", set, err)
	}
}
