package criuhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/restoring"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// A container that was restored uses its objects from the moment at which CRIU lets it
// run. A second restore of the checkpoint has to know whether that came. CRIU calls
// its action scripts at post-resume if it did, and only then (criu/cr-restore.c), but
// its images directory is closed by that time: so what is to be noted is laid down
// when the objects are restored.

// owed is that.
type owed struct {
	Container string          `json:"container"` // its id, for the log
	Dir       string          `json:"dir"`       // that of the images
	Restored  plugin.Restored `json:"restored"`
}

func owedName(criu state.Process) string { return restoring.FileName(criu, idle.Owed) }

// dueSuffix ends the name of the file once the container runs: it is to be noted, by a
// later action if not at once.
const due = "due"

func dueName(criu state.Process) string { return restoring.AnswerName(criu, due) }

// notRan is what is lost without the note.
const notRan = "that the container came to run will not be known to a second restore of the checkpoint, which takes it for a first one: "

// owe lays down what is to be noted at post-resume.
func (r *run) owe(report *plugin.RestoreReport) error {
	if report.Restored == nil || sum(report.Image).Objects == 0 {
		return nil
	}
	if r.state == nil {
		r.warn(notRan+"%v", r.noState)
		return nil
	}
	content, err := json.Marshal(&owed{
		Container: eventlog.Container(r.InitPID, r.CRIU.PID, r.dirName()), Dir: r.dirName(), Restored: *report.Restored,
	})
	if err == nil {
		err = r.state.ReplaceLarge(owedName(r.CRIU), content)
	}
	if err != nil {
		r.warn(notRan+"%v", err)
	}
	return nil
}

// noteOwed notes it. CRIU tells nobody of an error, so it is logged.
func (h *Hook) noteOwed(ctx context.Context, e Event) error {
	dir, err := state.Existing()
	if errors.Is(err, state.ErrNowhere) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	err = dir.Rename(owedName(e.CRIU), dueName(e.CRIU))
	if errors.Is(err, unix.ENOENT) { // CRIU 4.1.1 runs each script twice
		err = nil
	}
	var o owed
	if err == nil {
		o, err = noteDue(ctx, dir, dueName(e.CRIU))
	}
	if err != nil {
		_ = eventlog.WriteHere(eventlog.Entry{
			Action: e.Action, Container: o.Container, Init: e.InitPID, CRIU: e.CRIU.PID, Dir: o.Dir, Error: unnoted + err.Error(),
		})
		return fmt.Errorf("%s: %s%w", e.Action, unnoted, err)
	}
	return nil
}

// unnoted begins the error of a note that the next dump or restore tries to make again.
const unnoted = "that the container came to run is not noted yet: "

// noteDue notes what a file says, and removes the file when that is done.
func noteDue(ctx context.Context, dir *state.Dir, name string) (o owed, err error) {
	content, err := dir.ReadLarge(name)
	if errors.Is(err, unix.ENOENT) {
		return o, nil // somebody else was faster
	}
	if err == nil {
		err = json.Unmarshal(content, &o)
	}
	if err == nil {
		err = plugin.NoteRan(ctx, o.Restored)
	}
	if err != nil {
		return o, err
	}
	return o, dir.Remove(name)
}

// duePatience is how long a record is waited for that another process has.
const duePatience = 5 * time.Second

// noteAllDue notes what could not be noted when containers came to run.
func (r *run) noteAllDue(ctx context.Context, names []string) {
	ctx, cancel := context.WithTimeoutCause(ctx, duePatience, errors.New("another process has it for too long"))
	defer cancel()
	for _, name := range names {
		if _, action, ok := restoring.ParseAnswerName(name); !ok || action != due {
			continue
		}
		if _, err := noteDue(ctx, r.state, name); err != nil {
			r.warn(unnoted+"%s: %v", r.state.Join(name), err)
		}
	}
}
