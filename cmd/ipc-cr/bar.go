package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin"
)

// bar shows progress on a terminal, for what takes more than a second. The
// libraries for it bring net/http along, whose start alone costs as much as a
// whole small checkpoint.
type bar struct {
	w     io.Writer
	what  string
	since time.Time
	drawn bool
}

const barWidth = 30

// barAfter is how long a copy takes that is not worth a bar.
var barAfter = time.Second

func newBar(w io.Writer, what string) *bar { return &bar{w: w, what: what, since: time.Now()} }

// progress returns what the engine calls, nil if nobody would see it.
func (b *bar) progress() plugin.Progress {
	file, ok := b.w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return b.draw
}

func (b *bar) draw(done, total int64) {
	if total <= 0 || time.Since(b.since) < barAfter {
		return
	}
	b.drawn = true
	done = min(done, total)
	filled := int(done * barWidth / total)
	fmt.Fprintf(b.w, "\r%s [%s%s] %d of %d messages", b.what,
		strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), done, total)
}

// done takes the bar away.
func (b *bar) done() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
