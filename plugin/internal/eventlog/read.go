package eventlog

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Read returns the entries of the log in a state directory, the oldest first, and
// how many lines are none: a writer was killed in the middle of one, the file system
// was full, or they are another version's. A last line without an end is not counted,
// because it may be being written.
func Read(dir *state.Dir) (entries []Entry, unreadable int, err error) {
	content, err := dir.Appended(FileName, MaxFile)
	if err != nil {
		return nil, 0, err
	}
	content = content[:bytes.LastIndexByte(content, '\n')+1]
	for line := range bytes.Lines(content) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue // an entry begins with a newline
		}
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.Action == "" || e.Time.IsZero() {
			unreadable++
			continue
		}
		e.Time = e.Time.UTC().Truncate(time.Millisecond)
		e.bound()
		entries = append(entries, e)
	}
	return entries, unreadable, nil
}
