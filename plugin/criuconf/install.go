package criuconf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options are those of Install and Uninstall.
type Options struct {
	// Runtimes of Runtimes(). Without any, Install takes those of runc and crun
	// that are on PATH, and for them the file in which the hook is already, or the
	// one from which the host's criu runs it once; and Uninstall takes every file.
	Runtimes []string
	// Root is the directory below which files are read and written; paths within
	// them, and in the report, are without it. "" is the host itself.
	Root string
	// Binary is ipc-cr's absolute path, below Root; by default that of the
	// running program. The script is a symbolic link beside it.
	Binary string
	// InFront puts the binary in front of criu, or takes it from there. Without
	// Runtimes nothing else is done then, but for the script.
	InFront bool
	// Dir is the directory for the place in front of criu. Without it Install
	// chooses one, and Uninstall searches PATH and that of services.
	Dir string
	// DryRun reports what would be done.
	DryRun bool
	// Wait is how long Uninstall waits for criu processes that may still call the
	// script. With 0 it looks once.
	Wait time.Duration
	// Waiting, if it is there, is called with them before Uninstall waits.
	Waiting func([]Running)
}

// Action is what was done to a file.
type Action string

// The actions. A file that was not there and is not made is not reported.
const (
	Created   Action = "created"
	Changed   Action = "changed"
	Removed   Action = "removed"
	Unchanged Action = "unchanged"
)

// Change is what was done to a file, or to a symbolic link: the script, or the
// one in front of criu.
type Change struct {
	Path     string   `json:"path"`
	Action   Action   `json:"action"`
	Runtimes []string `json:"runtimes"` // that read the file; none for a link
	Diff     []string `json:"diff"`     // "+3: text" added, "-3: text" taken away as line 3
}

// Report is what was done, in that order.
type Report struct {
	DryRun  bool      `json:"dry_run"`
	Script  string    `json:"script"`
	Changes []Change  `json:"changes"`
	Running []Running `json:"running"` // criu processes that Uninstall has waited for, or would
	Notes   []string  `json:"notes"`
}

// Install makes the script and puts it into the configuration file of each
// runtime, and puts the binary in front of criu. Nothing is changed if one of the
// files is not understood, if one of them or a file that is read with it holds the
// hook of another ipc-cr, if the hook would run twice, if others than root can write the program or the directory in front
// (ErrWritable), if Runtimes is empty and neither runc nor crun is on PATH, if
// there is no criu to stand in front of (ErrNoCRIU), if the host's criu is too old
// (ErrOldCRIU), or if something that is not ipc-cr's is at the place. Needs root, or
// to be the owner of Root. Doing it twice changes nothing.
func Install(ctx context.Context, o Options) (*Report, error) {
	return run(ctx, o, "install", (*job).planInstall)
}

// Uninstall takes the lines away, removes files that Install made and that
// nobody else wrote into, the links to this binary in front of criu, and the
// script when nothing needs it any more. A link in front is this binary's by its
// path: the file there may be a newer one. Needs
// what Install needs, but not the program's safety.
//
// The script goes last, when no criu is left that began before the lines went and
// would miss it. The error is ErrRunning, with the report of what was done, if there
// still is one after Options.Wait, or when ctx ends.
func Uninstall(ctx context.Context, o Options) (*Report, error) {
	return run(ctx, o, "uninstall", (*job).planUninstall)
}

// run plans everything before it does the first thing.
func run(ctx context.Context, o Options, verb string, plan func(*job, context.Context, Options) error) (*Report, error) {
	j, err := newJob(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	defer j.root.Close()
	err = plan(j, ctx, o)
	for _, s := range j.steps {
		if err == nil && !o.DryRun && s.do != nil {
			err = s.do()
		}
		if err != nil {
			s.change.Action, s.change.Diff = Unchanged, []string{}
		}
		j.report.Changes = append(j.report.Changes, s.change)
	}
	switch {
	case errors.Is(err, ErrRunning):
		return j.report, fmt.Errorf("%s: %w", verb, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	return j.report, nil
}

// step is a change and the way to make it, if there is anything to do.
type step struct {
	change Change
	do     func() error
}

type job struct {
	root   *tree
	binary string
	criu   answers // of the host's, when Install has asked
	steps  []step
	report *Report
}

func newJob(o Options) (*job, error) {
	for _, runtime := range o.Runtimes {
		if !slices.Contains(Runtimes(), runtime) {
			return nil, fmt.Errorf("runtime %q: choose of %s", runtime, strings.Join(Runtimes(), ", "))
		}
	}
	binary, err := binaryOf(o)
	if err != nil {
		return nil, err
	}
	root, err := openTree(o.Root)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(filepath.Dir(binary), Name)
	return &job{root: root, binary: binary, report: &Report{DryRun: o.DryRun, Script: script, Changes: []Change{}, Running: []Running{}, Notes: []string{}}}, nil
}

// binaryOf is the program's path as it is on the target.
func binaryOf(o Options) (string, error) {
	if o.Binary != "" {
		if !filepath.IsAbs(o.Binary) {
			return "", fmt.Errorf("binary %q: not an absolute path", o.Binary)
		}
		return filepath.Clean(o.Binary), nil
	}
	self, err := os.Executable()
	if err != nil || o.Root == "" {
		return self, err
	}
	root, err := filepath.Abs(o.Root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return "", err
	}
	within, err := filepath.Rel(root, self)
	if err != nil || !filepath.IsLocal(within) {
		return "", fmt.Errorf("the running %s is not below %s: tell where the binary will be", self, root)
	}
	return filepath.Join("/", within), nil
}

func (j *job) note(format string, args ...any) {
	j.report.Notes = append(j.report.Notes, fmt.Sprintf(format, args...))
}

func (j *job) planInstall(ctx context.Context, o Options) error {
	if o.Root == "" {
		if err := OnlyRootWrites(j.binary); err != nil {
			return err
		}
	}
	j.askCRIU(ctx)
	if err := j.planLink(); err != nil {
		return err
	}
	if !o.InFront || len(o.Runtimes) > 0 {
		if err := j.planRuntimes(o); err != nil {
			return err
		}
	}
	if o.InFront { // last: what is in front needs the script
		return j.planFront(o.Dir)
	}
	return nil
}

func (j *job) planRuntimes(o Options) error {
	if err := j.criu.old(); err != nil {
		return j.refusal(err)
	}
	runtimes, err := j.chosen(o.Runtimes)
	if err != nil {
		return err
	}
	files := filesOf(runtimes, j.root.exists)
	if len(o.Runtimes) > 0 {
		err = checkShared(files, "install")
		j.noteOld(files)
	} else {
		files, err = j.best(files, runtimes)
	}
	if err != nil {
		return err
	}
	if err := j.checkTwice(files); err != nil {
		return err
	}
	for _, file := range sorted(files) {
		if err := j.planAdd(file, files[file]); err != nil {
			return err
		}
	}
	return nil
}

// chosen are the runtimes that were asked for, or those on PATH.
func (j *job) chosen(asked []string) ([]string, error) {
	if len(asked) > 0 {
		return asked, nil
	}
	var found []string
	for _, runtime := range []string{"runc", "crun"} {
		if j.root.lookPath(runtime) != "" {
			found = append(found, runtime)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("neither runc nor crun is on PATH: name the runtime")
	}
	return found, nil
}

// best returns the files for runtimes that nobody named: own, which are theirs,
// or the one that every criu reads, if the script is there already or CRIU would
// run it twice from runc's, and not at all from crun's.
func (j *job) best(own map[string][]string, runtimes []string) (map[string][]string, error) {
	everyone := map[string][]string{DefaultFile: runtimes}
	if there, err := j.has(DefaultFile); there || err != nil {
		return everyone, err
	}
	v := j.criu.first()
	if !v.twice() {
		return own, nil
	}
	stays, withHook, err := j.afterwards(own)
	if err != nil {
		return nil, err
	}
	if !stays {
		j.note("%s, which every criu reads, whoever starts it: CRIU %s runs the hook once from there, twice from runc's file, and not at all from crun's", DefaultFile, v)
		return everyone, nil
	}
	if slices.Contains(runtimes, "crun") {
		j.note("CRIU %s reads no file for crun, whose checkpoints go without the hook, and would run it from %s: %s", v, DefaultFile, again(withHook))
	}
	if slices.Contains(runtimes, "runc") {
		j.note("CRIU %s runs the hook twice from %s, and would run it once from %s: %s", v, RuncFile, DefaultFile, again(withHook))
	}
	return own, nil
}

// afterwards are the runtimes' files with the script in them when own have it, too.
// stays tells that one has it now.
func (j *job) afterwards(own map[string][]string) (stays bool, all []string, err error) {
	for _, file := range []string{RuncFile, CrunFile} {
		has, err := j.has(file)
		if err != nil {
			return false, nil, err
		}
		stays = stays || has
		if has || own[file] != nil {
			all = append(all, file)
		}
	}
	return stays, all, nil
}

// checkTwice refuses what would run the script twice for each action, or after
// that of another ipc-cr: every criu reads its own file and the runtime's.
func (j *job) checkTwice(files map[string][]string) error {
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		if !readWith(file, files) {
			continue
		}
		text, err := j.root.content(file)
		if err != nil {
			return err
		}
		scripts, _ := Scripts(text) // what is not understood is refused where it is to be changed
		if err := checkAlone(scripts, j.report.Script); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	has := map[string]bool{}
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		there, err := j.has(file)
		if err != nil {
			return err
		}
		has[file] = there || files[file] != nil
	}
	for _, file := range []string{RuncFile, CrunFile} {
		if has[file] && has[DefaultFile] {
			return fmt.Errorf("every criu reads %s, one that a runtime starts with %s as well: with the hook in both it would run twice: choose one of them", DefaultFile, file)
		}
	}
	return nil
}

// readWith says whether a criu that reads one of the files reads this one too.
func readWith(file string, files map[string][]string) bool {
	return files[file] != nil || files[DefaultFile] != nil || file == DefaultFile && len(files) > 0
}

// has says whether a file names the script.
func (j *job) has(file string) (bool, error) {
	text, err := j.root.content(file)
	rest, _ := Remove(text, j.report.Script)
	return len(rest) != len(text), err
}

func (j *job) planAdd(file string, runtimes []string) error {
	old, err := j.root.read(file)
	if err != nil {
		return err
	}
	change := Change{Path: file, Action: Created, Runtimes: runtimes, Diff: []string{}}
	var text []byte
	if old == nil {
		text, err = New(j.report.Script)
	} else {
		text, err = Add(old.text, j.report.Script)
		change.Action = Changed
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if old != nil && string(text) == string(old.text) {
		change.Action = Unchanged
		j.steps = append(j.steps, step{change: change})
		return nil
	}
	change.Diff = difference(old, text)
	j.steps = append(j.steps, step{change, func() error { return j.root.write(file, old, text) }})
	j.noteShared(file, runtimes)
	return nil
}

// noteShared tells whom else a change of runc's file concerns.
func (j *job) noteShared(file string, runtimes []string) {
	switch {
	case file != RuncFile || len(runtimes) > 1 || j.root.exists(CrunFile):
	case runtimes[0] == "crun":
		j.note("%s: crun reads it because there is no %s; runc reads it too", RuncFile, CrunFile)
	case j.root.lookPath("crun") != "":
		j.note("%s: crun reads it too, because there is no %s", RuncFile, CrunFile)
	}
}

func sorted(files map[string][]string) []string {
	var list []string
	for _, file := range []string{RuncFile, CrunFile, DefaultFile} {
		if files[file] != nil {
			list = append(list, file)
		}
	}
	return list
}
