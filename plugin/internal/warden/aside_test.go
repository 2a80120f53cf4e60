package warden

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestSetAsideAndBack(t *testing.T) {
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	img := imagesDir(t, msgImage, varImage, "inventory.img")
	for range 2 { // CRIU 4.1.1 runs each action twice
		must(t, w.SetAside(img, []string{msgImage, "ipcns-sem-1.img"}))
		mustContain(t, img, msgImage+Suffix, varImage, "inventory.img")
		mustBeAside(t, w, msgImage)
	}
	other := imagesDir(t, msgImage)
	mustSay(t, w.SetAside(other, []string{msgImage}), fmt.Sprintf("set images aside in %q: images in %q are set aside for this CRIU already", other, img))
	must(t, w.End())
	mustContain(t, img, msgImage, varImage, "inventory.img")
	mustBeEmpty(t, dir)
}

// CRTOOLS_IMAGE_DIR is a magic link of CRIU's, which is gone when CRIU is.
func TestSetAsideThroughADescriptor(t *testing.T) {
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	img := imagesDir(t, msgImage)
	fd, err := unix.Open(img, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, w.SetAside(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), []string{msgImage}))
	must(t, unix.Close(fd))
	mustContain(t, img, msgImage+Suffix)
	content, err := dir.Read(noteName(w.criu))
	must(t, err)
	if n, err := parseNote(content); err != nil || n.Images == nil || n.Images.Path != img {
		t.Errorf("noted %+v, %v, want %s", n.Images, err, img)
	}
	must(t, w.End())
	mustContain(t, img, msgImage)
}

// What is planted under our names. The other image must not stay aside.
func TestSetAsideRefuses(t *testing.T) {
	plants := map[string]func(path string) error{
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"symlink":   func(path string) error { return os.Symlink("/etc/hostname", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	}
	for kind, plant := range plants {
		for _, name := range []string{varImage, varImage + Suffix} {
			t.Run(kind+" "+name, func(t *testing.T) {
				dir := tempState(t)
				w := startCRIU(t, dir).start(t, dir)
				img := imagesDir(t, msgImage)
				must(t, plant(filepath.Join(img, name)))
				err := w.SetAside(img, []string{msgImage, varImage})
				if err == nil || !strings.Contains(err.Error(), name) || errors.Is(err, ErrReadOnly) {
					t.Errorf("set aside: %v, want an error that names %s", err, name)
				}
				mustContain(t, img, msgImage, name)
				mustBeAside(t, w)
				if got := files(t, dir); len(got) != 2 {
					t.Errorf("files %v: the turn was not given up", got)
				}
			})
		}
	}
}

func TestSetAsideOfLeftovers(t *testing.T) {
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	img := imagesDir(t, msgImage+Suffix)
	must(t, os.WriteFile(filepath.Join(img, msgImage+Suffix), []byte(msgImage), 0o600))
	must(t, w.SetAside(img, []string{msgImage}))
	mustBeAside(t, w, msgImage)
	must(t, w.End())
	mustContain(t, img, msgImage)

	both := imagesDir(t, msgImage)
	must(t, os.WriteFile(filepath.Join(both, msgImage+Suffix), []byte(msgImage), 0o600))
	w = startCRIU(t, dir).start(t, dir)
	if err := w.SetAside(both, []string{msgImage}); err == nil || !strings.Contains(err.Error(), "remove") {
		t.Errorf("both are there: %v, want the remedy", err)
	}
	mustContain(t, both, msgImage, msgImage+Suffix)
}

// A file that fails after another was renamed takes that one back with it.
func TestMoveIsAllOrNothing(t *testing.T) {
	img := imagesDir(t, msgImage+Suffix, varImage)
	must(t, os.WriteFile(filepath.Join(img, msgImage+Suffix), []byte(msgImage), 0o600))
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	must(t, w.SetAside(img, []string{msgImage, varImage}))
	mustContain(t, img, msgImage+Suffix, varImage+Suffix)
	must(t, w.End())

	p := &post{dir: dir, note: mustNote(t), images: &images{folder: mustFolder(t, img)}}
	must(t, dir.Create(noteName(p.note.CRIU), nil))
	reason := errors.New("reason")
	must(t, p.move([]string{msgImage, varImage}))
	if err := p.moveBack([]string{varImage}, []string{msgImage, varImage}, reason); !errors.Is(err, reason) {
		t.Errorf("move back: %v", err)
	}
	mustContain(t, img, msgImage, varImage+Suffix)
	if got := p.images.names; len(got) != 1 || got[0] != varImage {
		t.Errorf("aside %v, want what was aside before", got)
	}
}

func mustNote(t *testing.T) note {
	t.Helper()
	self := lookup(t, os.Getpid())
	n, err := newNote(self, self)
	must(t, err)
	return n
}

func mustFolder(t *testing.T, path string) folder {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	f, err := newFolder(fd)
	must(t, err)
	return f
}

// Neither side renames anything but images, whoever asks.
func TestSetAsideOfOtherNames(t *testing.T) {
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	img := imagesDir(t, "inventory.img", msgImage)
	folder := mustFolder(t, img)
	for _, name := range []string{"inventory.img", "../" + msgImage, "ipcns-../x.img", "ipcns-.img", "", "ipcns-msg-1.img" + Suffix, "ipcns-" + strings.Repeat("1", 70) + ".img"} {
		refusal := fmt.Sprintf("%q is not the name of an ipcns image", name)
		mustSay(t, w.SetAside(img, []string{name}), fmt.Sprintf("set images aside in %q: %s", img, refusal))
		_, err := w.call(t.Context(), request{Do: doAside, Names: []string{name}}, folder.fd)
		mustSay(t, err, refusal)
	}
	if err := w.SetAside(filepath.Join(img, msgImage), []string{msgImage}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file as directory: %v, want ENOTDIR", err)
	}
	mustContain(t, img, "inventory.img", msgImage)
}

func TestSetAsideInAReadOnlyDirectory(t *testing.T) {
	nstest.Require(t, "root")
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	img := imagesDir(t, msgImage, varImage)
	must(t, unix.Mount(img, img, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		w.End() // it may have the directory open
		if err := unix.Unmount(img, 0); err != nil {
			t.Error(err)
		}
	})
	must(t, unix.Mount("", img, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	err := w.SetAside(img, []string{msgImage, varImage})
	if !errors.Is(err, ErrReadOnly) || !errors.Is(err, unix.EROFS) {
		t.Errorf("set aside: %v, want ErrReadOnly and EROFS", err)
	}
	mustContain(t, img, msgImage, varImage)
	if got := files(t, dir); len(got) != 2 {
		t.Errorf("files %v: the turn was not given up", got)
	}
}

func TestDirectoryTurns(t *testing.T) {
	dir := tempState(t)
	one, two := startCRIU(t, dir), startCRIU(t, dir)
	first, second := one.start(t, dir), two.start(t, dir)
	img := imagesDir(t, msgImage)
	must(t, first.SetAside(img, []string{msgImage}))
	second.wait = 50 * time.Millisecond
	err := second.SetAside(img, []string{msgImage})
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", one.PID())) {
		t.Errorf("beside another: %v, want ErrBusy and its name", err)
	}
	mustBeAside(t, second)
	second.wait = deadline
	done := make(chan error)
	go func() { done <- second.SetAside(img, []string{msgImage}) }()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	must(t, first.End())
	must(t, <-done)
	mustBeAside(t, second, msgImage)

	// Both of the other one are killed: the file is there for the taking.
	killed(t, second)
	two.Kill()
	first = one.start(t, dir)
	must(t, first.SetAside(img, []string{msgImage}))
	mustBeAside(t, first, msgImage)
	if r := recoverNow(dir); len(r.Done)+len(r.Warnings) != 0 {
		t.Errorf("recovery %+v beside its new owner", r)
	}
	mustContain(t, img, msgImage+Suffix)
	must(t, first.End())
	mustContain(t, img, msgImage)
	if r := recoverNow(dir); len(r.Done)+len(r.Warnings) != 0 {
		t.Errorf("recovery %+v when all is done", r)
	}
	mustBeEmpty(t, dir)
}

// Somebody made a file under the image's own name meanwhile.
func TestPutBackReplacesNothing(t *testing.T) {
	dir := tempState(t)
	criu := startCRIU(t, dir)
	w := criu.start(t, dir)
	img := imagesDir(t, msgImage, varImage)
	must(t, w.SetAside(img, []string{msgImage, varImage}))
	must(t, os.WriteFile(filepath.Join(img, msgImage), []byte(msgImage), 0o600))
	if err := w.End(); err == nil || !strings.Contains(err.Error(), msgImage) {
		t.Errorf("end: %v, want an error that names the file", err)
	}
	mustContain(t, img, msgImage, msgImage+Suffix, varImage)
	mustBeAside(t, w, msgImage)
	must(t, os.Remove(filepath.Join(img, msgImage)))
	criu.Kill()
	if r := recoverNow(dir); len(r.Done) != 1 || len(r.Warnings) != 0 {
		t.Errorf("recovery %+v, want the file back", r)
	}
	mustContain(t, img, msgImage, varImage)
}

// What cannot be noted first is not set aside.
func TestSetAsideWithoutANote(t *testing.T) {
	dir := tempState(t)
	w := startCRIU(t, dir).start(t, dir)
	img := imagesDir(t, msgImage)
	note := dir.Join(noteName(w.criu))
	kept := note + ".kept"
	must(t, os.Rename(note, kept))
	must(t, os.Mkdir(note, 0o700)) // rename(2) over it is EISDIR
	if err := w.SetAside(img, []string{msgImage}); !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), note) {
		t.Errorf("set aside: %v, want the reason why nothing can be noted", err)
	}
	mustContain(t, img, msgImage)
	must(t, os.Remove(note))
	must(t, os.Rename(kept, note))
	mustBeAside(t, w)
}
