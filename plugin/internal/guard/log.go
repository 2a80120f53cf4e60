package guard

import (
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// logPutBack logs that something was put back, or why not, where nobody is told. dir
// may be nil.
func logPutBack(dir *state.Dir, done string, err error) {
	e := eventlog.Entry{Action: "guard", Done: []string{done}}
	if err != nil {
		e.Done, e.Error = nil, err.Error()
	}
	_ = eventlog.Write(dir, e) // there is nobody to tell
}
