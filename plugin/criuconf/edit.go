package criuconf

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
)

// Name is what the binary is called as CRIU's action script, which gets no
// arguments to tell it what it is.
const Name = idle.Name

// madeHere begins a file that did not exist before.
const madeHere = "# made by ipc-cr install; ipc-cr uninstall removes it\n"

// pathForm is what needs no quotes in any version of CRIU.
var pathForm = form(`^/[A-Za-z0-9/._+@:,~-]+$`)

// New returns the text of a file that has only the script in it. Errors as of
// Add.
func New(script string) ([]byte, error) {
	if err := checkPath(script); err != nil {
		return nil, err
	}
	return []byte(madeHere + lineOf(script)), nil
}

// Add returns the text with an action-script line for the script, or the text
// itself if it has one. The line comes first: there no option that lacks its
// value can swallow it, and no line needs an end that it does not have. So CRIU
// runs the script after all others of the file.
//
// The error is a *LineError if the text is not understood or has the hook of
// another ipc-cr, which would do everything a second time.
func Add(text []byte, script string) ([]byte, error) {
	if err := checkPath(script); err != nil {
		return nil, err
	}
	scripts, err := Scripts(text)
	if err != nil {
		return nil, err
	}
	if err := checkAlone(scripts, script); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(scripts, func(s Script) bool { return s.Path == script }) {
		return text, nil
	}
	return append([]byte(lineOf(script)), text...), nil
}

// checkAlone wants none of the scripts to be the hook of an ipc-cr elsewhere. The
// error is a *LineError.
func checkAlone(scripts []Script, script string) error {
	for _, s := range scripts {
		if s.Path != script && path.Base(s.Path) == Name {
			return &LineError{Line: s.Line, Err: fmt.Errorf("it runs %s, the hook of another ipc-cr: remove that line first", s.Path)}
		}
	}
	return nil
}

// Remove returns the text without the script's lines, whoever wrote them: a line
// that names a script which is gone makes every dump fail. Everything else stays
// as it is, lines that are not understood included. gone says that nothing is
// left of a file that New made.
func Remove(text []byte, script string) (rest []byte, gone bool) {
	var kept []string
	for _, raw := range lines(text) {
		if !names(raw, script) {
			kept = append(kept, raw)
			continue
		}
		if last := len(kept) - 1; last >= 0 && strings.TrimRight(kept[last], "\r\n") == strings.TrimRight(madeHere, "\n") {
			kept = slices.Delete(kept, last, last+1)
			gone = true
		}
	}
	left := strings.Join(kept, "")
	return []byte(left), gone && left == ""
}

// names says whether a line names the script, even if CRIU would read a carriage
// return with it.
func names(raw, script string) bool {
	option, value, err := split(raw)
	option, inOption, _ := strings.Cut(option, "=")
	return err == nil && isActionScript(option) && strings.TrimRight(inOption+value, space) == script
}

func lineOf(script string) string { return "action-script " + script + "\n" }

func checkPath(script string) error {
	switch {
	case !pathForm().MatchString(script):
		return fmt.Errorf("%q cannot stand in a configuration file of criu: an absolute path of letters, digits and /._+@:,~- can", script)
	case path.Clean(script) != script:
		return fmt.Errorf("%q is not the shortest form of the path", script)
	}
	return nil
}
