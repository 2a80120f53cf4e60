package criuconf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// ErrOldCRIU says that a criu is too old for the hook: it aborts on every action
// script, whatever that is, when a runtime starts it.
var ErrOldCRIU = errors.New("a CRIU before 3.19 aborts when a runtime starts it and its configuration names an action script")

// newCRIU is the remedy.
const newCRIU = "install CRIU 3.19 or later"

// errSilent says that a criu, asked for its version, names none.
var errSilent = errors.New("says no version")

// answer is what one criu says of itself.
type answer struct {
	program string // as it is found on PATH, below the tree
	version version
	unknown error // why there is no version; ErrWritable if root was to run what others can write
}

// old is ErrOldCRIU with the program and its version, or nil.
func (a answer) old() error {
	if !a.version.aborts() {
		return nil
	}
	return fmt.Errorf("%s is CRIU %s: %w", a.program, a.version, ErrOldCRIU)
}

// answers are those of the criu that is found first on this process's PATH and of
// the one on that of services, behind ipc-cr where that is in front. Below another
// root there are none: it is for another machine.
type answers []answer

// askCRIU asks each criu for its version.
func (t *tree) askCRIU(ctx context.Context, binary string) (all answers) {
	if !t.host {
		return nil
	}
	for _, p := range t.searchPaths() {
		_, criu := t.along(p.path, t.isIPCCR(binary))
		if _, asked := all.of(criu); criu != "" && !asked {
			all = append(all, t.ask(ctx, criu))
		}
	}
	return all
}

func (t *tree) ask(ctx context.Context, criu string) answer {
	a := answer{program: criu}
	program, err := runnable(t.abs(criu))
	if err != nil {
		a.unknown = err
		return a
	}
	if a.version = versionOf(ctx, program, answering); a.version == (version{}) {
		a.unknown = fmt.Errorf("%s %w", criu, errSilent)
	}
	return a
}

// of returns the answer of a program.
func (all answers) of(program string) (answer, bool) {
	for _, a := range all {
		if a.program == program {
			return a, true
		}
	}
	return answer{}, false
}

// first is the version of the criu that is found first, none if it is unknown.
func (all answers) first() version {
	if len(all) == 0 {
		return version{}
	}
	return all[0].version
}

// unknown is why that version is not known, nil if it is.
func (all answers) unknown() error {
	if len(all) == 0 {
		return ErrNoCRIU
	}
	return all[0].unknown
}

// old is the error of the first one that is too old, or nil: the files are read by
// each of them.
func (all answers) old() error {
	for _, a := range all {
		if err := a.old(); err != nil {
			return err
		}
	}
	return nil
}

// notAsked is noted where the criu is another machine's.
const notAsked = "CRIU is not asked for its version below --root: the hook needs 3.19 or later"

// askCRIU asks the host's, and notes what is not known of it.
func (j *job) askCRIU(ctx context.Context) {
	if !j.root.host {
		j.note("%s", notAsked)
		return
	}
	j.criu = j.root.askCRIU(ctx, j.binary)
	if err := j.criu.unknown(); err != nil {
		j.note("%s", takenForNew(err))
	}
}

// refusal says what follows from a criu that is too old.
func (j *job) refusal(old error) error {
	remedy := newCRIU
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		if has, err := j.has(file); has && err == nil {
			remedy += "; until then ipc-cr uninstall, because " + file + " names the hook"
			break
		}
	}
	return fmt.Errorf("%w: every checkpoint and restore would fail: %s", old, remedy)
}

// noteOld tells what a CRIU before 4.2 does not make of the files that were asked
// for.
func (j *job) noteOld(files map[string][]string) {
	if files[RuncFile] == nil && files[CrunFile] == nil {
		return
	}
	v := j.criu.first()
	if !v.twice() {
		return
	}
	if files[CrunFile] != nil || slices.Contains(files[RuncFile], "crun") {
		j.note("CRIU %s reads no file for crun, whose checkpoints go without the hook: %s is read for it, and by every other criu", v, DefaultFile)
	}
	if files[RuncFile] != nil {
		j.note("CRIU %s runs the hook twice from %s, which costs milliseconds, and once from %s", v, RuncFile, DefaultFile)
	}
}

// takenForNew says what follows from an unknown version.
func takenForNew(why error) string {
	return fmt.Sprintf("CRIU's version is unknown, and taken for 4.2 or later: %v", why)
}

// CheckCRIU asks the criu that a program finds on this PATH, behind ipc-cr where
// that is in front, for its version. The error is ErrOldCRIU if it is too old for
// the hook, and names it; nil also where there is none, where it names no version,
// and where others than root can write it, so that root does not run it.
func CheckCRIU(ctx context.Context, path string) error {
	root, err := openTree("")
	if err != nil {
		return nil // what cannot be asked is not refused
	}
	defer root.Close()
	binary, err := os.Executable()
	if err != nil {
		return nil
	}
	_, criu := root.along(path, root.isIPCCR(binary))
	if criu == "" {
		return nil
	}
	if err := root.ask(ctx, criu).old(); err != nil {
		return fmt.Errorf("%w: %s", err, newCRIU)
	}
	return nil
}
