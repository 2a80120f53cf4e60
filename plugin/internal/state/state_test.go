package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// noRoot is a uid that is not the test's.
const noRoot = 4242

func openTemp(t *testing.T) *Dir {
	t.Helper()
	dir, err := Open(filepath.Join(t.TempDir(), dirName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func TestOpenMakesAPrivateDirectory(t *testing.T) {
	dir := openTemp(t)
	info, err := os.Lstat(dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeDir|0o700 {
		t.Errorf("mode %v, want a directory of 0700", info.Mode())
	}
	again, err := Open(dir.Path())
	if err != nil {
		t.Fatalf("open it again: %v", err)
	}
	again.Close()
}

func TestOpenRefusesPlantedDirectories(t *testing.T) {
	tests := []struct {
		name, remedy string
		root         bool
		plant        func(path string) error
	}{
		{"link to a good one", "remove it", false, func(path string) error {
			target := path + ".target"
			return errors.Join(os.Mkdir(target, 0o700), os.Symlink(target, path))
		}},
		{"dangling link", "remove it", false, func(path string) error { return os.Symlink(path+".target", path) }},
		{"file", "remove it", false, func(path string) error { return os.WriteFile(path, nil, 0o600) }},
		{"writable by the group", "chmod 0700", false, func(path string) error { return makeDir(path, 0o720) }},
		{"writable by all", "chmod 0700", false, func(path string) error { return makeDir(path, 0o1777) }},
		{"readable by others", "chmod 0700", false, func(path string) error { return makeDir(path, 0o755) }},
		{"another user's", "remove it", true, func(path string) error {
			return errors.Join(makeDir(path, 0o700), os.Chown(path, noRoot, noRoot))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.root {
				nstest.Require(t, "root")
			}
			path := filepath.Join(t.TempDir(), dirName)
			if err := test.plant(path); err != nil {
				t.Fatal(err)
			}
			dir, err := Open(path)
			if err == nil {
				dir.Close()
				t.Fatal("it was opened")
			}
			if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.remedy) {
				t.Errorf("error %q: want ErrUntrusted, the path and the remedy %q", err, test.remedy)
			}
		})
	}
}

func makeDir(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if mode&0o1000 != 0 {
		mode = mode&0o777 | os.ModeSticky
	}
	return os.Chmod(path, mode)
}

var defaultProgram = nstest.Program("state.default", func(args []string) {
	os.Setenv("XDG_RUNTIME_DIR", args[0])
	dir, err := Default()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(dir.Path())
})

// In a user namespace whose root has no right over the host's /run the place is
// $XDG_RUNTIME_DIR, or there is none.
func TestDefaultInAUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	runtimeDir, err := os.MkdirTemp("/tmp", "ipc-cr-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtimeDir) })
	const mappedRoot = 100000 // nstest's default extent
	if err := os.Chown(runtimeDir, mappedRoot, mappedRoot); err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		runtimeDir:              filepath.Join(runtimeDir, dirName),
		"":                      ErrNowhere.Error(),
		"relative":              ErrNowhere.Error(),
		runtimeDir + "/missing": ErrNowhere.Error(),
		"/root":                 ErrNowhere.Error(),
	} {
		p := nstest.StartInUserNS(t, nil, defaultProgram, set)
		got, err := io.ReadAll(p.Stdout)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("XDG_RUNTIME_DIR=%q: %q, want %q", set, got, want)
		}
	}
}
