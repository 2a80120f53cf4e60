package criuconf

import (
	"fmt"
	"slices"
)

// The files that CRIU reads on behalf of each runtime. DefaultFile is read by
// every criu, whoever starts it.
const (
	RuncFile    = "/etc/criu/runc.conf"
	CrunFile    = "/etc/criu/crun.conf"
	DefaultFile = "/etc/criu/default.conf"
)

// Runtimes are the names that Options takes. Podman, CRI-O and containerd run
// one of the first two.
func Runtimes() []string { return []string{"runc", "crun", "criu"} }

// fileOf is the file that CRIU reads for a runtime as things are. crun takes
// runc's while it has none of its own, and an empty one counts
// (src/libcrun/criu.c, handle_criu_config_file).
func fileOf(runtime string, exists func(string) bool) string {
	switch {
	case runtime == "criu":
		return DefaultFile
	case runtime == "crun" && (exists(CrunFile) || !exists(RuncFile)):
		return CrunFile
	}
	return RuncFile
}

// filesOf is fileOf for several runtimes: which read which file, when those that
// will be made are there. With runc's there is no need for a file of crun's: it
// would hide from crun whatever else somebody writes into runc's.
func filesOf(runtimes []string, exists func(string) bool) map[string][]string {
	willExist := func(path string) bool {
		return exists(path) || path == RuncFile && slices.Contains(runtimes, "runc")
	}
	files := map[string][]string{}
	for _, runtime := range Runtimes() {
		if slices.Contains(runtimes, runtime) {
			file := fileOf(runtime, willExist)
			files[file] = append(files[file], runtime)
		}
	}
	return files
}

// again tells how to take the hook out of files, and nothing else with it, and to
// have install choose where it goes: what is in every criu's file stays in it.
func again(files []string) string {
	out, in := "ipc-cr uninstall", "ipc-cr install"
	for _, file := range files {
		switch file {
		case RuncFile:
			out += " --runtime runc"
		case CrunFile:
			out += " --runtime crun"
		case DefaultFile:
			out += " --runtime criu"
		}
	}
	if len(files) == 1 && files[0] == DefaultFile {
		in += " --runtime criu"
	}
	return out + ", then " + in
}

// checkShared refuses to touch runc's file for crun alone, unless nobody chose:
// it would change what runc does.
func checkShared(files map[string][]string, verb string) error {
	if readers := files[RuncFile]; len(readers) == 1 && readers[0] == "crun" {
		return fmt.Errorf("crun has no %s and reads %s, as runc does: %s --runtime runc --runtime crun, or make a %s first", CrunFile, RuncFile, verb, CrunFile)
	}
	return nil
}
