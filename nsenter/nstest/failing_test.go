package nstest

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Only the calls that are named fail, with that first argument, on that thread.
func TestFailing(t *testing.T) {
	var files [2]*os.File
	for i := range files {
		f, err := os.Create(t.TempDir() + "/file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	Failing(t, unix.EIO, uint32(files[0].Fd()), []uint32{unix.SYS_FDATASYNC, unix.SYS_FSYNC}, func() {
		for _, sync := range []func(int) error{unix.Fsync, unix.Fdatasync} {
			if err := sync(int(files[0].Fd())); !errors.Is(err, unix.EIO) {
				t.Errorf("got %v, want EIO", err)
			}
			if err := sync(int(files[1].Fd())); err != nil {
				t.Errorf("of the other file: %v", err)
			}
		}
		if _, err := files[0].WriteString("x"); err != nil {
			t.Errorf("another call: %v", err)
		}
	})
	if err := files[0].Sync(); err != nil {
		t.Errorf("on another thread: %v", err)
	}
}
