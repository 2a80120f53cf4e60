// Package idle is the hook at the moments that do not concern it, which is most
// of them: CRIU starts its action scripts ten times for a dump and a restore, and
// five of these have to do with message queues. Importing it ends a process that
// was started as the hook at one of the others, with exit status 0, before the
// rest of the program is initialized: that takes twice as long as the Go runtime
// needs to start, and a container without queues pays for it each time.
//
// It comes that early because it imports next to nothing: of the packages whose
// imports are initialized, the first by its import path is the next (Go
// specification, Program initialization). What it imports decides: with
// path/filepath half of the program comes before it.
package idle

import "os"

// Name is what the binary is called as CRIU's action script: CRIU gives a script
// no arguments.
const Name = "ipc-cr-criu-hook"

// ActionEnv is the variable in which CRIU tells its scripts the action.
const ActionEnv = "CRTOOLS_SCRIPT_ACTION"

// The actions that ipc-cr has something to do at, by CRIU's names
// (criu/action-scripts.c).
const (
	PreDump             = "pre-dump"
	PostDump            = "post-dump"
	PreRestore          = "pre-restore"
	PostSetupNamespaces = "post-setup-namespaces"
	PostResume          = "post-resume"
)

// Owed ends the name of a file in the state directory that says what is to be noted at
// post-resume: mostly there is none.
const Owed = "-owed"

func init() {
	if len(os.Args) > 0 && IsHook(os.Args[0]) && nothingToDo(os.Getenv(ActionEnv)) {
		os.Exit(0)
	}
}

// IsHook reports whether a program of that argv[0] is the hook.
func IsHook(argv0 string) bool {
	base := argv0
	for i := range argv0 {
		if argv0[i] == '/' {
			base = argv0[i+1:]
		}
	}
	return base == Name
}

// nothingToDo reports whether an action does not concern the hook. Where none is
// told something is wrong, and to be said.
func nothingToDo(action string) bool {
	if action == PostResume {
		return !owes(criuOf(os.Getenv("CRTOOLS_IMAGE_DIR")))
	}
	return action != "" && !Concerns(action)
}

// criuOf takes the digits of CRIU's pid out of a path /proc/PID/fd/N.
func criuOf(dir string) string {
	const proc = "/proc/"
	if len(dir) < len(proc) || dir[:len(proc)] != proc {
		return ""
	}
	end := len(proc)
	for end < len(dir) && dir[end] >= '0' && dir[end] <= '9' {
		end++
	}
	return dir[len(proc):end]
}

// owes reports whether a file in the state directory may be what a CRIU process with
// that pid is to have noted.
func owes(pid string) bool {
	for _, parent := range []string{"/run", os.Getenv("XDG_RUNTIME_DIR")} {
		entries, _ := os.ReadDir(parent + "/ipc-cr")
		for _, entry := range entries {
			if name := entry.Name(); hasSuffix(name, Owed) && contains(name, "-"+pid+"-") {
				return true
			}
		}
	}
	return false
}

func hasSuffix(s, end string) bool { return len(s) >= len(end) && s[len(s)-len(end):] == end }

func contains(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			return true
		}
	}
	return false
}

// Concerns reports whether there may be anything to do at an action.
func Concerns(action string) bool {
	switch action {
	case PreDump, PostDump, PreRestore, PostSetupNamespaces, PostResume:
		return true
	}
	return false
}
