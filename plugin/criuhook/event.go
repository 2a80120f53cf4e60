package criuhook

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The actions that ipc-cr has something to do at, by CRIU's names
// (criu/action-scripts.c).
const (
	PreDump             = idle.PreDump
	PostDump            = idle.PostDump
	PreRestore          = idle.PreRestore
	PostSetupNamespaces = idle.PostSetupNamespaces
	PostResume          = idle.PostResume
)

// Event is one moment of a CRIU run.
type Event struct {
	Action    string
	ImagesDir string // any path that leads there, also a link below /proc; not needed at PostResume
	InitPID   int    // the container's first process as the caller sees it; 0 where CRIU tells none
	CRIU      state.Process
}

// Concerns reports whether there may be anything to do at an action.
func Concerns(action string) bool { return idle.Concerns(action) }

// FromEnv takes the event from the environment that CRIU gives its action
// scripts: CRTOOLS_SCRIPT_ACTION, CRTOOLS_IMAGE_DIR, which is a descriptor of
// CRIU's and so names its process, and CRTOOLS_INIT_PID. Where the action is none
// that Concerns knows, the rest is not looked at.
func FromEnv(getenv func(string) string) (Event, error) {
	e := Event{Action: getenv(idle.ActionEnv), ImagesDir: getenv("CRTOOLS_IMAGE_DIR")}
	if e.Action == "" {
		return e, fmt.Errorf("%s is not set: this is for CRIU to call, as its action script", idle.ActionEnv)
	}
	if !Concerns(e.Action) {
		return e, nil
	}
	criu, err := ownerOf(e.ImagesDir)
	if err != nil {
		return e, err
	}
	if e.CRIU, err = state.Lookup(criu); err != nil {
		return e, fmt.Errorf("CRIU, process %d: %w", criu, err)
	}
	if text := getenv("CRTOOLS_INIT_PID"); text != "" {
		if e.InitPID, err = strconv.Atoi(text); err != nil || e.InitPID <= 0 {
			return e, fmt.Errorf("CRTOOLS_INIT_PID %q is no process id", text)
		}
	}
	return e, nil
}

// ownerOf takes the pid out of /proc/PID/fd/N.
func ownerOf(path string) (int, error) {
	parts := strings.Split(path, "/")
	if len(parts) == 5 && parts[0] == "" && parts[1] == "proc" && parts[3] == "fd" {
		if pid, err := strconv.Atoi(parts[2]); err == nil && pid > 0 {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("CRTOOLS_IMAGE_DIR %q is no descriptor of CRIU's", path)
}

// dirName returns the path of the images directory for people: CRIU knows it as
// a link below /proc that is worth nothing when it has ended.
func (e *Event) dirName() string {
	if target, err := os.Readlink(e.ImagesDir); err == nil && strings.HasPrefix(target, "/") {
		return target
	}
	return e.ImagesDir
}

// path returns the path of the images directory that is good for later, for the
// record, too: the one for people if it leads to the same directory.
func (e *Event) path() string {
	name := e.dirName()
	here, err := os.Stat(e.ImagesDir)
	there, thereErr := os.Lstat(name)
	if err != nil || thereErr != nil || !os.SameFile(here, there) {
		return e.ImagesDir
	}
	return name
}
