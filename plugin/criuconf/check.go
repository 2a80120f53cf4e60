package criuconf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Hook tells of a runtime whether its checkpoints run the hook.
type Hook struct {
	Runtime string `json:"runtime"`
	Program string `json:"program"`
	InForce bool   `json:"in_force"`
	File    string `json:"file,omitempty"`   // that names the script
	Line    int    `json:"line,omitempty"`   // in it, from 1
	Script  string `json:"script,omitempty"` // the path in that line
	Detail  string `json:"detail,omitempty"` // what is wrong, in force or not
	Remedy  string `json:"remedy,omitempty"`
}

// Check reports of each runtime on PATH, and of criu, whether the hook is in
// force, and for this process's PATH, and for ServicesPath, whether a program that
// looks criu up finds ipc-cr first. With both in force CRIU calls the hook for each,
// which is said. Where a criu is too old for the hook (ErrOldCRIU) neither is in
// force: a dump would fail. Both lists are empty, not nil, where the machine's files
// cannot be looked at.
//
// Check changes nothing, and asks each criu once for its version, as root if nobody
// else can write it. Annotations of a container, CRIU_CONFIG_FILE and the files below
// a user's home can name other files, and programs can have a PATH of their own:
// those are not looked at.
func Check(ctx context.Context) (hooks []Hook, fronts []Front) {
	root, err := openTree("")
	if err != nil {
		return []Hook{}, []Front{}
	}
	defer root.Close()
	binary, err := os.Executable()
	if err != nil {
		return []Hook{}, []Front{}
	}
	return root.checkBoth(ctx, binary)
}

// checkBoth asks criu once for both.
func (t *tree) checkBoth(ctx context.Context, binary string) ([]Hook, []Front) {
	criu := t.askCRIU(ctx, binary)
	hooks := t.check(criu)
	return hooks, t.checkFront(binary, hooks, criu)
}

func (t *tree) check(criu answers) []Hook {
	old, unknown := criu.old(), criu.unknown()
	hooks := []Hook{}
	for _, runtime := range Runtimes() {
		if program := t.lookPath(runtime); program != "" {
			h := Hook{Runtime: runtime, Program: program}
			t.look(&h, criu.first())
			switch {
			case old != nil:
				h.tooOld(old)
			case h.Detail != "":
			case errors.Is(unknown, ErrWritable):
				h.Detail, h.Remedy = takenForNew(unknown), "have criu and the directories above it be root's alone"
			case errors.Is(unknown, errSilent):
				h.Detail, h.Remedy = takenForNew(unknown), "see what criu --version says"
			}
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// tooOld says what a criu that is too old makes of the hook.
func (h *Hook) tooOld(old error) {
	switch {
	case h.InForce:
		h.InForce = false
		h.Detail = fmt.Sprintf("%v, and %s line %d does: every checkpoint and restore fails", old, h.File, h.Line)
		h.Remedy = newCRIU + ", or ipc-cr uninstall"
	case h.File == "":
		h.Detail, h.Remedy = old.Error(), newCRIU+", then ipc-cr install"
	default: // something else is wrong as well
		h.Remedy = newCRIU + "; " + h.Remedy
	}
}

// look reads the runtime's file and criu's own, as its criu will.
func (t *tree) look(h *Hook, criu version) {
	own := fileOf(h.Runtime, t.exists)
	files := []string{own, DefaultFile}
	if own == DefaultFile || !criu.reads(h.Runtime) {
		files = []string{DefaultFile}
	}
	found := 0
	for _, path := range files {
		n, err := t.find(h, path)
		if err != nil {
			*h = Hook{Runtime: h.Runtime, Program: h.Program, File: path, Detail: err.Error(), Remedy: "put the file right: criu may refuse it as well"}
			return
		}
		found += n
	}
	switch {
	case found == 0:
		h.Detail, h.Remedy = "not in "+files[0], t.remedyFor(h.Runtime, own, criu)
		var unread Hook
		if n, _ := t.find(&unread, own); n > 0 {
			h.File, h.Line, h.Script = unread.File, unread.Line, unread.Script
			h.Detail = fmt.Sprintf("CRIU %s reads no file for %s, not %s", criu, h.Runtime, own)
		}
	case !h.InForce:
	case found > 1:
		h.Detail, h.Remedy = fmt.Sprintf("in force %d times: criu runs it as often", found), again(t.withHook())
	case h.File != DefaultFile && criu.twice():
		h.Detail, h.Remedy = fmt.Sprintf("CRIU %s runs it twice", criu), "none needed, it costs milliseconds; to spare them "+again(t.withHook())
	}
}

// remedyFor puts the hook into force for a runtime of which neither own, its
// file, nor criu's has it.
func (t *tree) remedyFor(runtime, own string, criu version) string {
	files := t.withHook()
	switch {
	case runtime == "criu":
		return "none needed if the runtimes have it; else ipc-cr install --runtime criu, for all at once"
	case criu.twice() && len(files) > 0: // where install would leave it
		return again(files)
	case criu.twice():
		return "ipc-cr install"
	case runtime == "crun" && own == RuncFile:
		return "ipc-cr install --runtime runc --runtime crun"
	}
	return "ipc-cr install --runtime " + runtime
}

// withHook are the files that run a hook, as far as they are understood.
func (t *tree) withHook() []string {
	var list []string
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		if n, _ := t.find(&Hook{}, file); n > 0 {
			list = append(list, file)
		}
	}
	return list
}

// find looks for the script in a file and returns how often it is there.
func (t *tree) find(h *Hook, path string) (found int, err error) {
	text, err := t.content(path)
	if err != nil {
		return 0, err
	}
	scripts, err := Scripts(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	for _, s := range scripts {
		if filepath.Base(s.Path) != Name {
			continue
		}
		if found++; h.File == "" {
			h.File, h.Line, h.Script = path, s.Line, s.Path
			h.InForce = t.runs(h)
		}
	}
	return found, nil
}

// runs says whether CRIU can execute the script.
func (t *tree) runs(h *Hook) bool {
	err := unix.Faccessat(unix.AT_FDCWD, filepath.Join(t.path, h.Script), unix.X_OK, unix.AT_EACCESS)
	if err != nil {
		h.Detail = fmt.Sprintf("%s: %v: every dump and restore fails", h.Script, err)
		h.Remedy = fmt.Sprintf("remove line %d of %s, then ipc-cr install", h.Line, h.File)
	}
	return err == nil
}
