package criuconf

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// planUninstall takes out what is asked for, and all without being asked. The
// place in front goes first: what is in front needs the script.
func (j *job) planUninstall(ctx context.Context, o Options) error {
	all := len(o.Runtimes) == 0 && !o.InFront
	if o.InFront || all {
		j.planOutOfFront(o.Dir)
	}
	files := map[string][]string{}
	if all {
		files = map[string][]string{RuncFile: {"runc"}, CrunFile: {"crun"}, DefaultFile: {"criu"}}
	}
	if len(o.Runtimes) > 0 {
		files = filesOf(o.Runtimes, j.root.exists)
		if err := checkShared(files, "uninstall"); err != nil {
			return err
		}
	}
	for _, file := range sorted(files) {
		if err := j.planRemove(file, files[file]); err != nil {
			return err
		}
	}
	return j.planUnlink(ctx, o, files)
}

func (j *job) planRemove(file string, runtimes []string) error {
	old, err := j.root.read(file)
	if err != nil || old == nil {
		return err
	}
	change := Change{Path: file, Action: Unchanged, Runtimes: runtimes, Diff: []string{}}
	s := step{change: change}
	text, gone := Remove(old.text, j.report.Script)
	switch {
	case gone:
		s.change.Action = Removed
		s.do = func() error { return j.root.remove(file) }
	case len(text) != len(old.text):
		s.change.Action = Changed
		s.do = func() error { return j.root.write(file, old, text) }
	}
	s.change.Diff = difference(old, text)
	j.steps = append(j.steps, s)
	if s.do != nil {
		j.noteShared(file, runtimes)
	}
	j.noteOthers(file, text)
	return nil
}

// noteOthers tells of the hook of another ipc-cr, which is not ours to remove.
func (j *job) noteOthers(file string, text []byte) {
	scripts, _ := Scripts(text)
	for _, s := range scripts {
		if filepath.Base(s.Path) == Name {
			j.note("%s: line %d runs %s, the hook of another ipc-cr: left alone", file, s.Line, s.Path)
		}
	}
}

// planLink makes the script: the name by which the binary knows what it is.
func (j *job) planLink() error {
	script := j.report.Script
	target := filepath.Base(j.binary)
	change := Change{Path: script, Action: Created, Runtimes: []string{}, Diff: []string{}}
	found, err := j.root.link(script)
	switch {
	case err != nil:
		return err
	case found == target:
		change.Action = Unchanged
		j.steps = append(j.steps, step{change: change})
		return nil
	case found != "":
		return fmt.Errorf("%s is there and is not a link to %s but %s: remove it first", script, target, found)
	}
	change.Diff = []string{"+link to " + target}
	j.steps = append(j.steps, step{change, func() error { return j.root.symlink(target, script) }})
	return nil
}

// planUnlink removes the script, unless a file that is not being changed names
// it: then every dump would fail; or a link in front of criu is left, whose dumps
// would go the ordinary way. It goes when no running criu needs it any more.
func (j *job) planUnlink(ctx context.Context, o Options, files map[string][]string) error {
	script := j.report.Script
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		has, err := j.has(file)
		if err != nil {
			return err
		}
		if has && files[file] == nil {
			j.note("%s stays: %s names it", script, file)
			return nil
		}
	}
	if place, stays := j.stays(); stays {
		j.note("%s stays: %s needs it", script, place)
		return nil
	}
	found, err := j.root.link(script)
	if err != nil || found == "" {
		return err
	}
	change := Change{Path: script, Action: Removed, Runtimes: []string{}, Diff: []string{"-link to " + found}}
	if found != filepath.Base(j.binary) {
		j.note("%s stays: it is not a link to %s but %s", script, filepath.Base(j.binary), found)
		return nil
	}
	j.steps = append(j.steps, step{change, func() error {
		if err := j.awaitCRIU(ctx, o); err != nil {
			return err
		}
		return j.root.remove(script)
	}})
	if o.DryRun {
		_, err = j.findCRIU()
	}
	return err
}

// difference lists the lines that only one of the texts has. An edit adds or
// takes away whole lines, and never moves one.
func difference(old *file, text []byte) []string {
	var before []string
	if old != nil {
		before = slices.Collect(strings.Lines(string(old.text)))
	}
	after := slices.Collect(strings.Lines(string(text)))
	list := []string{}
	for a, b := 0, 0; a < len(before) || b < len(after); {
		switch {
		case a < len(before) && b < len(after) && before[a] == after[b]:
			a, b = a+1, b+1
		case len(after)-b > len(before)-a:
			list = append(list, fmt.Sprintf("+%d: %s", b+1, strings.TrimRight(after[b], "\r\n")))
			b++
		default:
			list = append(list, fmt.Sprintf("-%d: %s", a+1, strings.TrimRight(before[a], "\r\n")))
			a++
		}
	}
	return list
}
