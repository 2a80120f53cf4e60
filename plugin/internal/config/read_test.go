package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// write makes a directory with the file that only its owner can write.
func write(t *testing.T, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ipc-cr", "config.toml")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func me() uint32 { return uint32(os.Geteuid()) }

func TestRead(t *testing.T) {
	path := write(t, "later = \"keep\"\n")
	if got, err := read(path, me()); err != nil || string(got) != "later = \"keep\"\n" {
		t.Errorf("%q, %v", got, err)
	}
	// One byte more than allowed, and not one less.
	for size, want := range map[int]error{maxSize: nil, maxSize + 1: unix.EFBIG} {
		if err := os.WriteFile(path, []byte(strings.Repeat("#", size)), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := read(path, me()); !errors.Is(err, want) || err == nil && len(got) != size {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
}

// What others could have written is refused, and why is said.
func TestUntrusted(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string) error
		says  string
	}{
		"file for the group":      {chmod(0o664, false), "config.toml: not trusted: mode 0664 lets group or others write"},
		"file for others":         {chmod(0o602, false), "config.toml: not trusted: mode 0602 lets group or others write"},
		"directory for the group": {chmod(0o775, true), "ipc-cr: not trusted: mode 0775 lets group or others write"},
		"sticky directory":        {chmod(0o777|os.ModeSticky, true), "ipc-cr: not trusted: mode 1777 lets group or others write"},
		"symbolic link":           {link, "config.toml: not trusted: not a regular file, or a symbolic link"},
		"dangling link":           {dangle, "config.toml: not trusted: not a regular file, or a symbolic link"},
		"linked directory":        {linkDir, "ipc-cr: not trusted: not a directory, or a symbolic link"},
		"FIFO":                    {fifo, "config.toml: not trusted: not a regular file"},
		"directory":               {dir, "config.toml: not trusted: not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "")
			if err := c.spoil(t, path); err != nil {
				t.Fatal(err)
			}
			if _, err := read(path, me()); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

func chmod(mode os.FileMode, parent bool) func(*testing.T, string) error {
	return func(_ *testing.T, path string) error {
		if parent {
			path = filepath.Dir(path)
		}
		return os.Chmod(path, mode)
	}
}

func link(_ *testing.T, path string) error {
	if err := os.Rename(path, path+".real"); err != nil {
		return err
	}
	return os.Symlink(path+".real", path)
}

func dangle(_ *testing.T, path string) error {
	return errors.Join(os.Remove(path), os.Symlink("nowhere", path))
}

func linkDir(_ *testing.T, path string) error {
	dir := filepath.Dir(path)
	return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
}

func fifo(_ *testing.T, path string) error {
	return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644))
}

func dir(_ *testing.T, path string) error {
	return errors.Join(os.Remove(path), os.Mkdir(path, 0o755))
}

func TestLoadWithoutFile(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "ipc-cr/config.toml"), "/ipc-cr-nowhere/config.toml"} {
		got, err := Load(path)
		if err != nil || got.Neighbours != StopNeighbours || got.InPlace != "" || got.Later != RefuseLater || got.NeighboursMax != 0 {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
}

// A file that a user planted is refused by root, whether the file or its
// directory is theirs.
func TestLoadPlanted(t *testing.T) {
	nstest.Require(t, "root")
	path := write(t, "later = \"keep\"\n")
	if got, err := Load(path); err != nil || got.Later != KeepLater {
		t.Errorf("root's own: %+v, %v", got, err)
	}
	if err := os.Chown(path, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "config.toml: not trusted: belongs to uid 1000, not to 0") {
		t.Errorf("a user's file: %v", err)
	}
	if err := errors.Join(os.Chown(path, 0, 0), os.Chown(filepath.Dir(path), 1000, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "ipc-cr: not trusted: belongs to uid 1000, not to 0") {
		t.Errorf("a user's directory: %v", err)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	nstest.Require(t, "root")
	path := write(t, "\nlater = \"never\"\n")
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":2: later: want ") {
		t.Errorf("%v", err)
	}
}
