package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// terminal is a pseudo-terminal: what is written to tty is collected.
type terminal struct {
	tty  *os.File
	text chan string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{tty: tty, text: make(chan string, 1)}
	go func() {
		text, _ := io.ReadAll(master) // EIO when nobody has the other end open
		master.Close()
		term.text <- string(text)
	}()
	return term
}

// shown closes the terminal and returns what was written to it.
func (term *terminal) shown() string {
	term.tty.Close()
	return <-term.text
}

// A long copy shows a bar on a terminal, and takes it away; never while tasks
// are frozen, and never where nobody sees it.
func TestBar(t *testing.T) {
	nstest.Require(t, "userns")
	_, path := slow(t)
	defer func(after time.Duration) { barAfter = after }(barAfter)
	barAfter = 0 // how long a copy takes is the machine's affair
	// Twice as many where the messages were sent in the second of the first try.
	total := regexp.MustCompile(fmt.Sprintf(" of (%d|%d) messages", slowMessages, 2*slowMessages))
	args := []string{"checkpoint", "--method", "copy", "--ns", path, "-D"}
	for _, c := range []struct {
		name string
		args []string
		bar  bool
	}{
		{"copy", nil, true},
		{"freeze", []string{"--freeze"}, false},
	} {
		term, out := newTerminal(t), &bytes.Buffer{}
		args := append(append(args, filepath.Join(t.TempDir(), "images")), c.args...)
		if status := run(t.Context(), args, out, term.tty); status != 0 {
			t.Errorf("%s: exit status %d", c.name, status)
		}
		text := term.shown()
		if !c.bar {
			if text != "" {
				t.Errorf("%s: shown %q", c.name, text)
			}
			continue
		}
		if !strings.HasPrefix(text, "\rcopying [") || !total.MatchString(text) ||
			!strings.HasSuffix(text, "\r\x1b[K") {
			t.Errorf("%s: shown %q", c.name, text)
		}
	}
}

// The bar itself: how it is drawn, and that it waits for a second.
func TestBarDraws(t *testing.T) {
	var out strings.Builder
	b := newBar(&out, "copying")
	b.draw(5, 10)
	b.done()
	if out.Len() > 0 {
		t.Errorf("within the first second: %q", out.String())
	}
	b.since = b.since.Add(-2e9)
	b.draw(0, 0)
	for _, done := range []int64{0, 5, 10, 12} {
		b.draw(done, 10)
	}
	b.done()
	want := "\rcopying [..............................] 0 of 10 messages" +
		"\rcopying [###############...............] 5 of 10 messages" +
		"\rcopying [##############################] 10 of 10 messages" +
		"\rcopying [##############################] 10 of 10 messages\r\x1b[K"
	if out.String() != want {
		t.Errorf("drawn %q, want %q", out.String(), want)
	}
	if newBar(&out, "").progress() != nil {
		t.Error("a bar for what is no file")
	}
}
