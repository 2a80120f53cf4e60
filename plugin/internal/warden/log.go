package warden

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
)

// beforeEnd begins the log's entry of the warden's end, and returns which images are
// set aside.
func (p *post) beforeEnd() (e eventlog.Entry, aside []string) {
	e = eventlog.Entry{Action: "warden", CRIU: p.note.CRIU.PID}
	if p.hold != nil {
		e.Init = p.hold.init
	}
	if p.images != nil {
		e.Dir, aside = p.images.path, slices.Clone(p.images.names)
	}
	e.Container = eventlog.Container(e.Init, 0, e.Dir) // the criu process has ended
	return e, aside
}

// undone lists what the end has undone, of the images those that were aside before.
func (p *post) undone(aside []string) (texts []string) {
	if h := p.hold; h != nil && !h.only {
		frozen, _ := h.release() // again, for how long it was
		texts = append(texts, fmt.Sprintf("tasks of neighbours thawed: %d, frozen for %s", h.held.Tasks, frozen.Round(100*time.Microsecond)))
	}
	back := slices.DeleteFunc(aside, func(name string) bool {
		return p.images != nil && slices.Contains(p.images.names, name)
	})
	if len(back) > 0 {
		texts = append(texts, "images have their names again: "+strings.Join(back, ", "))
	}
	return texts
}

// logEnd logs the warden's end where CRIU has ended without a hook process having
// asked for it: nobody else hears what became of neighbours and images.
func (p *post) logEnd(err error) {
	if p.asked.Load() {
		return
	}
	if err != nil {
		p.last.Error = "after CRIU's end: " + err.Error()
	}
	if p.last.Silent() {
		return
	}
	p.last.Done = slices.Insert(p.last.Done, 0, "CRIU has ended and did not ask for it")
	_ = eventlog.Write(p.dir, p.last) // there is nobody to tell
}
