package criuconf

import (
	"fmt"
	"path/filepath"
)

// Front tells of a PATH whether ipc-cr stands before criu on it.
type Front struct {
	Of      string `json:"of"`   // "this command" or "services"
	Path    string `json:"path"` // that was searched
	InFront bool   `json:"in_front"`
	Place   string `json:"place,omitempty"` // the link to ipc-cr
	CRIU    string `json:"criu,omitempty"`  // the criu that is found, behind it or without it
	Detail  string `json:"detail,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

// checkFront looks along each PATH. hooks is what check found.
func (t *tree) checkFront(binary string, hooks []Hook, criu answers) []Front {
	fronts := []Front{}
	for _, p := range t.searchPaths() {
		f := Front{Of: p.of, Path: p.path}
		f.Place, f.CRIU = t.along(p.path, t.isIPCCR(binary))
		t.judge(&f, binary, hooks)
		if a, _ := criu.of(f.CRIU); a.old() != nil {
			f.tooOld(a.old())
		}
		fronts = append(fronts, f)
	}
	return fronts
}

// tooOld says what the place in front would do with a criu that is too old.
func (f *Front) tooOld(old error) {
	if !f.InFront {
		f.Detail, f.Remedy = old.Error(), newCRIU+", then ipc-cr install --in-front"
		return
	}
	f.InFront = false
	f.Detail = fmt.Sprintf("%v, and %s adds one: every dump that goes beside the namespace fails", old, f.Place)
	f.Remedy = newCRIU + ", or ipc-cr uninstall --in-front"
}

// isIPCCR says of a path whether it is a link to an ipc-cr, this one or another.
func (t *tree) isIPCCR(binary string) func(string) bool {
	return func(path string) bool {
		is, _ := t.standing(path, binary)
		return is == ours || is == another
	}
}

func (t *tree) judge(f *Front, binary string, hooks []Hook) {
	f.InFront = f.Place != "" && f.CRIU != ""
	switch {
	case f.CRIU == "" && f.Place == "":
		f.Detail, f.Remedy = "no criu is on "+f.Path, "none needed where nothing is checkpointed; else install criu"
	case f.CRIU == "":
		f.Detail, f.Remedy = fmt.Sprintf("%s has no criu behind it on %s", f.Place, f.Path), "install criu, or ipc-cr uninstall --in-front"
	case f.Place == "":
		f.Detail, f.Remedy = f.CRIU+" is found first", "none needed if checkpoints are quick enough; else ipc-cr install --in-front"
	default:
		t.flaws(f, binary, hooks)
	}
}

// flaws looks for what is wrong with a place that is in front.
func (t *tree) flaws(f *Front, binary string, hooks []Hook) {
	is, target := t.standing(f.Place, binary)
	if target = leadsTo(f.Place, target); is == ours {
		target = binary
	}
	script := t.scriptOf(f.Place, target)
	switch err := OnlyRootWrites(t.abs(target)); {
	case err != nil && t.host:
		f.Detail, f.Remedy = err.Error(), "make it root's alone, or ipc-cr uninstall --in-front"
	case script == "":
		f.Detail, f.Remedy = fmt.Sprintf("no %s beside %s: every dump goes the ordinary way", Name, target), "ipc-cr install --in-front"
	case is == another:
		f.Detail, f.Remedy = "it is "+errAnother.Error()+", "+target, "uninstall with that one, if this one is meant"
	default:
		f.Detail, f.Remedy = t.twice(script, hooks)
	}
}

// scriptOf is the action script that the binary adds when it is in front: the one
// beside the link, else the one beside the binary.
func (t *tree) scriptOf(place, binary string) string {
	for _, beside := range []string{place, binary} {
		script := filepath.Join(filepath.Dir(beside), Name)
		if t.programAt(script) {
			return script
		}
	}
	return ""
}

// twice tells that CRIU calls the hook for a configuration file and for the place
// in front. That is harmless as long as it is the same one: the second answer to
// an action is the first one's.
func (t *tree) twice(script string, hooks []Hook) (detail, remedy string) {
	for _, h := range hooks {
		switch {
		case !h.InForce:
		case !t.same(h.Script, script):
			return fmt.Sprintf("%s names another hook, %s, than this one's %s", h.File, h.Script, script),
				"ipc-cr uninstall with the one, then ipc-cr install with the other"
		default:
			detail = "CRIU calls the hook for " + h.File + " too: the second call of an action does nothing"
		}
	}
	return detail, ""
}
