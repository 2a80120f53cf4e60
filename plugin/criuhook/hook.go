package criuhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/config"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// Hook answers CRIU's events.
type Hook struct {
	Kinds []plugin.Kind // in the order in which a restore opens them
	// Log gets a line for each thing done, which CRIU puts into its log. ReadLog has
	// them too, for as long as there is room.
	Log io.Writer
}

// actions are what is done, by the action.
var actions map[string]func(*run, context.Context) error

func init() {
	actions = map[string]func(*run, context.Context) error{
		PreDump:             (*run).preDump,
		PostDump:            (*run).postDump,
		PreRestore:          (*run).preRestore,
		PostSetupNamespaces: (*run).postSetup,
	}
}

// run is one event being answered.
type run struct {
	*Hook
	Event
	config  *config.Config
	state   *state.Dir // nil where there is no place for one, or no room in it:
	noState error      // why
	kept    kept       // what is remembered of this action
	earlier []string   // what pre-dump has warned of
	said    []string   // parts of the line that is written about this action

	// For the log, as they were written:
	began  time.Time
	done   []string
	warned []string
}

// Run answers an event. An action that does not concern ipc-cr is no error. What
// was answered once is not done again: CRIU 4.1.1 runs each script twice, the
// second time even if the first failed, and gets the same answer.
//
// An error means that CRIU must give up what it is doing. It needs what
// plugin.Checkpoint and plugin.Restore need, in the host's namespaces.
func (h *Hook) Run(ctx context.Context, e Event) error {
	if e.Action == PostResume {
		return h.noteOwed(ctx, e)
	}
	do := actions[e.Action]
	if do == nil {
		return nil
	}
	r := &run{Hook: h, Event: e, began: time.Now()}
	defer r.close()
	err := r.openState()
	if err == nil {
		before, found, recallErr := r.recall(e.Action)
		if found && recallErr == nil {
			return r.named(before.err())
		}
		if err = recallErr; err == nil {
			err = r.carryOut(ctx, do)
			err = errors.Join(err, r.remember(err))
		}
	}
	r.log(err)
	return r.named(err)
}

// openState opens the state directory. There may be no place for one, and one on a file
// system that is full is none for an action that begins something. What a later one has
// to know can be read all the same.
func (r *run) openState() error {
	dir, err := state.Default()
	if errors.Is(err, state.ErrNowhere) || errors.Is(err, unix.EROFS) {
		r.noState = state.ErrNowhere
		return nil
	}
	if err != nil {
		return err
	}
	if r.Action == PreDump || r.Action == PreRestore {
		if err = dir.MayWrite(); isFull(err) {
			r.noState = fmt.Errorf("%w: %w", state.ErrNowhere, err)
			return dir.Close()
		}
		if err != nil {
			return errors.Join(err, dir.Close())
		}
	}
	r.state = dir
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// carryOut reads the settings, puts right what a killed run has left, and does what
// the action asks for.
func (r *run) carryOut(ctx context.Context, do func(*run, context.Context) error) (err error) {
	if r.config, err = config.Load(config.Path); err != nil {
		return err
	}
	if r.state != nil {
		r.recover(ctx)
	}
	err = do(r, ctx)
	r.speak()
	return err
}

func (r *run) close() {
	if r.state != nil {
		_ = r.state.Close()
	}
}

// say adds to the line that is written about this action.
func (r *run) say(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *run) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.write("warning: " + text)
	r.warned = append(r.warned, r.readable(text))
}

func (r *run) warnings(texts []string) {
	for _, text := range texts {
		r.warn("%s", text)
	}
}

// tell writes one line of what was done.
func (r *run) tell(text string) {
	r.write(text)
	r.done = append(r.done, r.readable(text))
}

func (r *run) speak() {
	if len(r.said) > 0 {
		r.tell(strings.Join(r.said, "; "))
	}
}

// write writes one line. What is in it may have been named by a container.
func (r *run) write(text string) {
	fmt.Fprintf(r.Log, "ipc-cr: %s: %s\n", r.Action, r.readable(text))
}

// readable puts the directory's path in the place of CRIU's descriptor, and makes
// one printable line of the text.
func (r *run) readable(text string) string {
	if r.ImagesDir != "" {
		text = strings.ReplaceAll(text, r.ImagesDir, r.dirName())
	}
	return eventlog.Escape(text)
}

// named says at which action an error came, and in which directory.
func (r *run) named(err error) error {
	if err == nil {
		return nil
	}
	return &failure{text: r.Action + ": " + r.readable(err.Error()), err: err}
}

// failure is an error with a text that a person understands.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// namespace opens the namespace of the container's first process.
func (r *run) namespace() (*nsenter.Namespace, error) {
	if r.InitPID == 0 {
		return nil, errors.New("CRIU tells no first process of the container (CRTOOLS_INIT_PID)")
	}
	return nsenter.OpenPID(r.InitPID)
}

// beside reports whether CRIU itself is in the namespace: then it takes it for its
// own, and leaves it alone.
func (r *run) beside(ns *nsenter.Namespace) (bool, error) {
	criu, err := nsenter.OpenPID(r.CRIU.PID)
	if err != nil {
		return false, err
	}
	defer criu.Close()
	return ns.Same(criu)
}

// warden returns the warden of this CRIU run and starts it where there is none.
func (r *run) warden() (*warden.Warden, error) {
	if r.state == nil {
		return nil, r.noState
	}
	return warden.Start(r.CRIU, r.state)
}

// endWarden ends the warden, if there is one, which puts everything back.
func (r *run) endWarden() error {
	if r.state == nil {
		return nil
	}
	w, err := warden.Find(r.CRIU, r.state)
	if errors.Is(err, warden.ErrKilled) {
		w, err = warden.Start(r.CRIU, r.state) // which takes over what it had set aside
	}
	if errors.Is(err, warden.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.End()
}

// images opens the images directory.
func (r *run) images() (*images.Dir, error) { return images.OpenDir(r.ImagesDir) }

// hasObjects returns the numbers of the namespaces of which the directory has an
// image of that kind.
func hasObjects(dir *images.Dir, of string) ([]uint32, error) {
	numbers, err := dir.Numbers()
	if err != nil {
		return nil, err
	}
	numbers = slices.DeleteFunc(numbers, func(n uint32) bool {
		names, listErr := dir.Holds(n)
		err = errors.Join(err, listErr)
		return !slices.Contains(names, images.FileName(of, n))
	})
	return numbers, err
}
