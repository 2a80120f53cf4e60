package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin"
)

// bar shows progress on a terminal, for what takes more than a second.
type bar struct {
	w     io.Writer
	what  string
	since time.Time
	drawn *progressbar.ProgressBar
}

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
	if b.drawn == nil {
		if time.Since(b.since) < time.Second {
			return
		}
		b.drawn = progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.w),
			progressbar.OptionSetDescription(b.what), progressbar.OptionShowCount(),
			progressbar.OptionSetItsString("messages"), progressbar.OptionClearOnFinish())
	}
	b.drawn.ChangeMax64(total)
	_ = b.drawn.Set64(min(done, total))
}

// done takes the bar away.
func (b *bar) done() {
	if b.drawn != nil {
		_ = b.drawn.Clear()
	}
}
