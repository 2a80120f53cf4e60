package warden

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// leave leaves the note of a dead CRIU and warden, changed by edit, over an
// image that is set aside.
func leave(t *testing.T, dir *state.Dir, img string, edit func(n *note)) (path string) {
	t.Helper()
	f := mustFolder(t, img)
	n := mustNote(t)
	n.CRIU.Start--
	n.Warden.Start--
	n.Images = &imagesNote{Path: img, Dev: f.dev, Inode: f.inode, Names: []string{msgImage}}
	edit(&n)
	content, err := json.Marshal(n)
	must(t, err)
	must(t, dir.Create(noteName(n.CRIU), content))
	return dir.Join(noteName(n.CRIU))
}

func asideDir(t *testing.T) string {
	t.Helper()
	img := imagesDir(t, msgImage)
	must(t, setAside(mustFolder(t, img).fd, msgImage))
	return img
}

func TestRecoverOfOtherTimesAndPlaces(t *testing.T) {
	tests := []struct {
		name             string
		edit             func(n *note)
		back, kept, said bool
	}{
		{"dead", func(*note) {}, true, false, true},
		{"other boot", func(n *note) { n.BootID = "another"; n.CRIU.Start++; n.Warden.Start++ }, true, false, true},
		{"CRIU alive", func(n *note) { n.CRIU.Start++ }, false, true, false},
		{"warden alive", func(n *note) { n.Warden.Start++ }, false, true, true},
		{"other pid namespace", func(n *note) { n.CRIU.PIDNamespace++ }, false, true, true},
		{"warden in another pid namespace", func(n *note) { n.Warden.PIDNamespace++ }, false, true, true},
		{"other inode", func(n *note) { n.Images.Inode++ }, false, false, true},
		{"other device", func(n *note) { n.Images.Dev++ }, false, false, true},
		{"directory gone", func(n *note) { n.Images.Path += "-gone" }, false, false, true},
		{"not a directory", func(n *note) { n.Images.Path += "/" + msgImage + Suffix }, false, false, true},
		{"through a link", func(n *note) {
			link := n.Images.Path + "-link"
			must(t, os.Symlink(n.Images.Path, link))
			n.Images.Path = link
		}, true, false, true},
		{"nothing aside", func(n *note) { n.Images = nil }, false, false, false},
		{"never set aside", func(n *note) { n.Images.Names = []string{varImage} }, false, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir, img := tempState(t), asideDir(t)
			path := leave(t, dir, img, test.edit)
			r := recoverNow(dir)
			if said := len(r.Done)+len(r.Warnings) > 0; said != test.said || test.back != (len(r.Done) == 1) || len(r.Warnings) > 1 {
				t.Errorf("recovery %+v", r)
			}
			if test.back {
				mustContain(t, img, msgImage)
			} else {
				mustContain(t, img, msgImage+Suffix)
			}
			if _, err := os.Lstat(path); (err == nil) != test.kept {
				t.Errorf("note: %v, want kept %t", err, test.kept)
			}
		})
	}
}

// A warden that is stopped is not waited for: it would be for an hour.
func TestRecoverSaysThatAWardenIsStopped(t *testing.T) {
	nstest.Require(t, "userns")
	dir, img := tempState(t), asideDir(t)
	criu := startCRIU(t, dir)
	w := criu.start(t, dir)
	must(t, unix.Kill(w.PID(), unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(w.PID(), unix.SIGCONT) })
	until(t, "the warden is stopped", w.process.Stopped)
	leave(t, dir, img, func(n *note) { n.Warden = w.process })
	names, err := dir.Names()
	must(t, err)
	ctx, cancel := context.WithTimeoutCause(t.Context(), deadline, errors.New("it waits"))
	defer cancel()
	r := Recover(ctx, dir, names, time.Hour)
	if want := fmt.Sprintf("is stopped: kill -CONT %d", w.PID()); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], want) {
		t.Errorf("recovery %+v, want %q", r, want)
	}
}

// The remedy for what cannot be put back is in the warning, each time.
func TestRecoverReplacesNothing(t *testing.T) {
	dir, img := tempState(t), asideDir(t)
	must(t, os.WriteFile(filepath.Join(img, msgImage), []byte(msgImage), 0o600))
	leave(t, dir, img, func(*note) {})
	for range 2 {
		r := recoverNow(dir)
		if len(r.Done) != 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], msgImage+Suffix) || !strings.Contains(r.Warnings[0], "remove") {
			t.Errorf("recovery %+v, want a warning with the remedy", r)
		}
	}
	mustContain(t, img, msgImage, msgImage+Suffix)
	must(t, os.Remove(filepath.Join(img, msgImage)))
	if r := recoverNow(dir); len(r.Done) != 1 || len(r.Warnings) != 0 {
		t.Errorf("recovery %+v", r)
	}
	mustContain(t, img, msgImage)
	mustBeEmpty(t, dir)
}

func TestRecoverOfRemains(t *testing.T) {
	dir := tempState(t)
	gone := lookup(t, os.Getpid())
	gone.Start--
	for _, name := range []string{turnPrefix + "ns-7.json", turnPrefix + "dir-1-2.json"} {
		c, err := newClaim(gone, gone)
		must(t, err)
		content, err := json.Marshal(c)
		must(t, err)
		must(t, dir.Create(name, content))
	}
	plantSocket(t, dir, gone, false)
	alive := lookup(t, os.Getpid())
	plantSocket(t, dir, alive, false)
	foreign := gone // nothing can be known about it from here
	foreign.PIDNamespace++
	plantSocket(t, dir, foreign, false)
	c, err := newClaim(foreign, foreign)
	must(t, err)
	content, err := json.Marshal(c)
	must(t, err)
	foreignTurn := turnPrefix + "ns-8.json"
	must(t, dir.Create(foreignTurn, content))
	if r := recoverNow(dir); len(r.Done)+len(r.Warnings) != 0 {
		t.Errorf("recovery %+v", r)
	}
	want := []string{socketName(alive), socketName(foreign), foreignTurn}
	slices.Sort(want)
	if left := files(t, dir); !slices.Equal(left, want) {
		t.Errorf("files %v, want those that are not of the dead, %v", left, want)
	}
}

func TestRecoverOfOtherFiles(t *testing.T) {
	dir := tempState(t)
	self := lookup(t, os.Getpid())
	valid, err := json.Marshal(mustNote(t))
	must(t, err)
	plants := map[string]func(path string) error{
		noteName(self):           func(path string) error { return os.Symlink("/etc/hostname", path) },
		"warden-1-2-3.json":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"warden-x.json":          func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"warden-4-5-6.json":      func(path string) error { return os.WriteFile(path, valid, 0o600) },
		turnPrefix + "ns-7.json": func(path string) error { return os.WriteFile(path, []byte(`{"format":1}`), 0o600) },
	}
	for name, plant := range plants {
		must(t, plant(dir.Join(name)))
	}
	must(t, os.WriteFile(dir.Join("guard-1.json"), nil, 0o600))
	r := recoverNow(dir)
	all := strings.Join(r.Warnings, "\n")
	if len(r.Warnings) != len(plants) || len(r.Done) != 0 {
		t.Errorf("recovery %+v, want a warning for each of %d", r, len(plants))
	}
	for name := range plants {
		if !strings.Contains(all, dir.Join(name)) {
			t.Errorf("nothing said about %s", name)
		}
	}
	if left := files(t, dir); len(left) != len(plants)+1 {
		t.Errorf("files %v: something was removed", left)
	}
}
