package criuhook

import (
	"errors"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Log is what ipc-cr did at CRIU's moments, and what its helper processes did, as far
// back as there is room: 512 KiB to twice as much.
type Log struct {
	Entries []LogEntry `json:"entries"` // the oldest first
	// Unreadable counts the lines that are no entries: their writer was killed, or
	// the file system was full.
	Unreadable int `json:"unreadable"`
}

// LogEntry is one action that had something to say. Its texts are of one line and
// printable, whatever containers have put into them; long ones are cut, and say so.
type LogEntry struct {
	Time time.Time `json:"time"` // when it was over, in UTC
	// Action is CRIU's name for the moment. Helper processes have "after-dump", the
	// look at the container after CRIU's end, "warden" and "guard". The place in front
	// of criu has "dump" for a dump that goes the ordinary way, and "criu" where it
	// could not execute criu at all.
	Action    string        `json:"action"`
	Container string        `json:"container,omitempty"` // its id, where one is found
	Init      int           `json:"init_pid,omitempty"`  // the container's first process
	CRIU      int           `json:"criu_pid,omitempty"`
	Dir       string        `json:"images_dir,omitempty"`
	Took      time.Duration `json:"duration_ns,omitempty"`
	Done      []string      `json:"done,omitempty"`
	Warnings  []string      `json:"warnings,omitempty"`
	Error     string        `json:"error,omitempty"` // why the action failed, and with it the dump or restore
}

// ReadLog reads the log, which is in /run/ipc-cr for root, else in
// $XDG_RUNTIME_DIR/ipc-cr. It is empty where there is no such directory.
func ReadLog() (*Log, error) {
	log := &Log{Entries: []LogEntry{}}
	dir, err := state.Existing()
	if errors.Is(err, state.ErrNowhere) {
		return log, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, unreadable, err := eventlog.Read(dir)
	if err != nil {
		return nil, err
	}
	log.Unreadable = unreadable
	for _, e := range entries {
		log.Entries = append(log.Entries, LogEntry(e))
	}
	return log, nil
}

// LogFailure logs why an event cannot be answered at all, as where FromEnv fails. An
// event without an action is none.
func LogFailure(e Event, why error) {
	if e.Action != "" {
		entry := e.entry()
		entry.Error = why.Error()
		_ = eventlog.WriteHere(entry) // the caller says it, too
	}
}

// log puts what was said, and why the action failed, into the log. That it cannot is
// said to CRIU, and nothing more.
func (r *run) log(failed error) {
	if failed == nil && len(r.done) == 0 && len(r.warned) == 0 {
		return
	}
	entry := r.entry()
	entry.Took, entry.Done, entry.Warnings = time.Since(r.began), r.done, r.warned
	if failed != nil {
		entry.Error = r.readable(failed.Error())
	}
	if err := eventlog.Write(r.state, entry); err != nil {
		r.write(err.Error())
	}
}

// entry begins one about an event.
func (e *Event) entry() eventlog.Entry {
	dir := e.dirName()
	return eventlog.Entry{
		Action: e.Action, Container: eventlog.Container(e.InitPID, e.CRIU.PID, dir),
		Init: e.InitPID, CRIU: e.CRIU.PID, Dir: dir,
	}
}
