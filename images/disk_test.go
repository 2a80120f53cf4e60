package images_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A disk that is full at any page or inode gives an error, and no file that
// passes for a checkpoint; an old one stays.
func TestFullDisk(t *testing.T) {
	nstest.Require(t, "userns")
	for _, limit := range []string{"nr_blocks", "nr_inodes"} {
		for _, old := range []generation{0, 1} {
			t.Run(fmt.Sprintf("%s, old %d", limit, old), func(t *testing.T) { fillUp(t, limit, old) })
		}
	}
}

func fillUp(t *testing.T, limit string, old generation) {
	failed := 0
	for room := 1; room < 64; room++ {
		saved := false
		onTmpfs(t, fmt.Sprintf("%s=%d", limit, room), func(path string) { saved = saveInto(t, path, old, 2) })
		switch {
		case saved && failed == 0:
			t.Fatal("never full")
		case saved:
			t.Logf("full with less than %d", room)
			return
		}
		failed++
	}
	t.Fatal("never enough")
}

// saveInto reports whether the checkpoint could be saved.
func saveInto(t *testing.T, path string, old, g generation) bool {
	dir := must[*images.Dir](t)(images.OpenDir(path))
	defer dir.Close()
	if err := dir.Lock(); err != nil {
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("lock: %v, want ENOSPC", err)
		}
		return false
	}
	if old > 0 && old.save(dir, 1) != nil {
		return false
	}
	before := listing(t, path)
	err := g.save(dir, 1)
	got, loadErr := load(dir, 1)
	switch {
	case err == nil && (got != g || loadErr != nil):
		t.Errorf("saved, but generation %d, %v", got, loadErr)
	case err == nil:
	case !errors.Is(err, unix.ENOSPC):
		t.Errorf("got %v, want ENOSPC", err)
	case old == 0 && loadErr == nil:
		t.Errorf("generation %d is accepted after %v", got, err)
	case old > 0 && (got != old || loadErr != nil):
		t.Errorf("the old checkpoint is generation %d, %v after %v", got, loadErr, err)
	case strings.Join(listing(t, path), " ") != strings.Join(before, " "):
		t.Errorf("left: %q", listing(t, path))
	}
	return err == nil
}

// onTmpfs runs fn on a thread in a mount namespace of its own, with a small
// tmpfs at path.
func onTmpfs(t *testing.T, options string, fn func(path string)) {
	t.Helper()
	path := t.TempDir()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		var err error
		defer func() { done <- err }()
		err = unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", path, "tmpfs", 0, options)
		}
		if err == nil {
			fn(path)
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
