// Package idle is the hook at the moments that do not concern it, which is most
// of them: CRIU starts its action scripts ten times for a dump and a restore, and
// four of these have to do with message queues. Importing it ends a process that
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
)

func init() {
	if len(os.Args) > 0 && IsHook(os.Args[0]) && nothingToDo(os.Getenv(ActionEnv)) {
		os.Exit(0)
	}
}

// IsHook tells whether a program of that argv[0] is the hook.
func IsHook(argv0 string) bool {
	base := argv0
	for i := range argv0 {
		if argv0[i] == '/' {
			base = argv0[i+1:]
		}
	}
	return base == Name
}

// nothingToDo tells whether an action does not concern the hook. Where none is
// told something is wrong, and to be said.
func nothingToDo(action string) bool { return action != "" && !Concerns(action) }

// Concerns tells whether there is anything to do at an action.
func Concerns(action string) bool {
	switch action {
	case PreDump, PostDump, PreRestore, PostSetupNamespaces:
		return true
	}
	return false
}
