// Package eventlog is where ipc-cr says what it did when nobody looks on: a
// bounded log in the state directory, and the system log. CRIU's own logs are no
// such place. Podman deletes dump.log and restore.log after a success, containerd
// deletes the whole bundle after a failure; and the helper processes have no stderr.
//
//	/run/ipc-cr/log, log.1    512 KiB each, a line of JSON for each entry; `ipc-cr log` prints them
//	/dev/log                  syslog(3)'s socket, where there is one
//
// Writing waits for nobody, because a container may be frozen meanwhile: a system
// log that is not read, and a log that is full, lose lines.
//
// Only root, or the user whose state directory it is, reads and writes the log. What
// is in it was partly chosen by containers, so an entry is escaped and bounded when it
// is written, and escaped again where it is read.
//
// Do not use it for what a caller is told anyway, such as the report of a command.
package eventlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// FileName is the log's name in the state directory, and MaxFile its size in bytes
// at which a new one is begun. One old one is kept (state.OldSuffix).
const (
	FileName = "log"
	MaxFile  = 512 << 10
)

// Entry is one thing that was done, or could not be.
type Entry struct {
	Time      time.Time     `json:"time"`                 // when it was over; Write fills it in
	Action    string        `json:"action"`               // CRIU's name for the moment, or the helper process
	Container string        `json:"container,omitempty"`  // its id, see Container
	Init      int           `json:"init_pid,omitempty"`   // the container's first process
	CRIU      int           `json:"criu_pid,omitempty"`   // the criu process
	Dir       string        `json:"images_dir,omitempty"` // images directory
	Took      time.Duration `json:"duration_ns,omitempty"`
	Done      []string      `json:"done,omitempty"`
	Warnings  []string      `json:"warnings,omitempty"`
	Error     string        `json:"error,omitempty"`
}

// Silent reports whether an entry says nothing, and is not worth writing.
func (e *Entry) Silent() bool {
	return len(e.Done) == 0 && len(e.Warnings) == 0 && e.Error == ""
}

// Write sends an entry to the system log, and adds it to the log in a state
// directory, which is nil where there is none. A silent entry is written nowhere.
//
// An error says that the log does not have it, and is no reason to fail what was
// logged. That the system log does not have it is no error: many hosts have none.
func Write(dir *state.Dir, e Entry) error {
	if e.Silent() {
		return nil
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	e.bound()
	toSyslog(syslogSocket, &e)
	if dir == nil {
		return nil
	}
	record, err := e.encode()
	if err == nil {
		err = dir.Append(FileName, record, MaxFile)
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// WriteHere is Write to the state directory of this process.
func WriteHere(e Entry) error {
	if e.Silent() {
		return nil
	}
	dir, err := state.Default()
	if err != nil { // there still is the system log
		_ = Write(nil, e)
		return fmt.Errorf("log: %w", err)
	}
	defer dir.Close()
	return Write(dir, e)
}

// encode makes a line of an entry. It begins with a newline, too: the line before
// it has none where its writer was killed in the middle, or the file system was full.
func (e *Entry) encode() ([]byte, error) {
	var line bytes.Buffer
	line.WriteByte('\n')
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(e)
	return line.Bytes(), err
}
