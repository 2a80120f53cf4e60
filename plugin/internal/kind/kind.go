// Package kind is the contract between the engine (package plugin) and the
// kinds of IPC objects (packages plugin/msgq, plugin/ipcvar). The engine goes
// over a slice of kinds and knows none by name; a kind knows its objects and
// its image file and nothing of the order of events.
package kind

import (
	"context"
	"errors"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
)

// ErrChanged says that objects changed while they were read: what was read is
// worth nothing, another try may succeed.
var ErrChanged = errors.New("changed while it was copied")

// ErrWalk says that a kernel.Walk cannot be relied on: what was copied is worth
// nothing, another try without it may succeed.
var ErrWalk = errors.New("the walk along it cannot be relied on")

// Target is the namespace that an operation works on.
type Target struct {
	Space  kernel.Space
	Owner  *nsenter.Owner // for the ids in images
	Limits *limits.Keeper
	Done   *Progress
	// Walker returns what copies an object in one walk, where MSG_COPY would spend
	// so much on walking; nil if that is not worth it, or not possible. nil for
	// never. It may be called from several goroutines at once.
	Walker func(walking time.Duration) kernel.Walker
	// Frozen says that no process uses the objects: all tasks of the namespace are
	// stopped, for sure.
	Frozen bool
}

// Kind is one kind of IPC objects, with the image file that holds it.
type Kind interface {
	// Name is the kind's name in reports and in the JSON file.
	Name() string
	// Walking is what walking along the objects costs at least, and at most, where
	// there is no Target.Walker; objects on which less than worth is spent do not
	// count. It is a guess by their numbers, and quick. The two are the same where
	// EachWalking would take longer than what it tells is worth.
	Walking(k kernel.Kernel, worth time.Duration) (least, most time.Duration, err error)
	// EachWalking looks at each object and tells of it what Target.Walker is going
	// to be told. tell may be called from several goroutines at once.
	EachWalking(t *Target, k kernel.Kernel, tell func(walking time.Duration)) error
	// Survey reads the state of all objects, without their content.
	Survey(t *Target, k kernel.Kernel) (Survey, error)
	// Load checks the kind's image whole, and changes nothing; that it is what the
	// JSON file says, set.Ready tells afterwards. A missing file is an image without
	// objects. owner is the user namespace that owns the target.
	Load(ctx context.Context, set *images.Set, owner *nsenter.Owner) (Image, error)
}

// Survey is the state of all objects of a kind at one moment.
type Survey interface {
	// Recheck reads the state of all objects again. An error that wraps ErrChanged
	// names the first difference.
	Recheck(t *Target, k kernel.Kernel) error
	// Busy names an object that changed in the seconds from since to until, both
	// included, by the kernel's own time stamps; "" if there is none. What processes
	// that are held did, by the ids that the kernel keeps of the last users, was
	// before they were stopped and does not count; nil: nobody is. After a Copy that
	// failed, it knows of the objects that were got to.
	Busy(since, until int64, held func(pid int) bool) string
	// Size is how much was copied; before that a guess, for progress.
	Size() Size
	// Copy writes the image of what was surveyed, and leaves every object as it
	// is. It may call Target.Space.Run for more threads. An error that wraps
	// ErrChanged asks for another try.
	Copy(ctx context.Context, t *Target, k kernel.Kernel, stage *images.Stage) (images.Details, error)
}

// Image is the checked image of a kind.
type Image interface {
	// Size is how much there is to restore.
	Size() Size
	// Objects tells what the record keeps of the image's objects, in the image's
	// order, without Left. A kind with nothing to record has none.
	Objects() []record.Object
	// Plan compares the image with the live namespace and decides, object by
	// object, what is to be done. It changes nothing.
	Plan(ctx context.Context, t *Target, k kernel.Kernel, w Wanted) (Plan, error)
	// Close closes the file. No plan can be carried out afterwards.
	Close() error
}

// Policy says what to do about an object that stands in the way.
type Policy int

// The policies of --on-conflict.
const (
	Fail Policy = iota
	Adopt
	Replace
)

// Situation is what the plans of all kinds together amount to.
type Situation struct {
	// Empty: the namespace holds nothing but leftovers of a killed restore and
	// objects equal to the image's, so its limits become the image's.
	Empty bool
	Needs Needs
}

// Needs is the least value of each sysctl with which objects can be made.
type Needs map[string]int64

// Merge raises n to what other needs.
func (n Needs) Merge(other Needs) {
	for name, value := range other {
		n[name] = max(n[name], value)
	}
}

// Plan is what a restore is going to do for a kind. The engine calls May, Begin,
// Make and Seal in this order, and Undo when anything fails before the first
// Seal.
type Plan interface {
	// Steps tells what happens to the objects about which a wanted action is
	// taken.
	Steps(wanted func(Action) bool) []Step
	// Absent returns the names of the image's objects, as in Objects, that are not in
	// the namespace and that Make does not make.
	Absent() []string
	// Needs is what Make will need of the namespace's limits.
	Needs() Needs
	// Strangers counts the objects in the namespace that are neither leftovers
	// nor equal to the image's.
	Strangers() int
	// Objects is Image.Objects with Left for those that Make makes: what is known
	// of it before, and all after Seal.
	Objects() []record.Object
	// May tells, before anything is changed, whether the privileges are there for
	// what Begin, Make, Seal and Undo are going to do, and for making again what Make
	// removes. Its error names what is missing.
	May(k kernel.Kernel, s Situation) error
	// Removes counts the objects that Make removes and that are nowhere else. Save
	// comes first where there are any.
	Removes() Size
	// Save writes the image of those objects, whole, as Survey.Copy would. Make
	// removes none that is not as it was then. A kind without objects writes what
	// goes with every image.
	Save(ctx context.Context, t *Target, k kernel.Kernel, stage *images.Stage) (images.Details, error)
	// Begin is called once for each kind before the first Make.
	Begin(k kernel.Kernel, t *Target, s Situation) error
	// Make makes the objects, closed to everybody else.
	Make(ctx context.Context, t *Target, k kernel.Kernel) error
	// Check looks once more at what Make made.
	Check(t *Target, k kernel.Kernel) error
	// Seal opens the objects: owner, mode and limits become the image's. Then it
	// removes what is to go.
	Seal(t *Target, k kernel.Kernel) error
	// Undo removes what Make made, newest first.
	Undo(k kernel.Kernel) error
}

// Action is what a restore does about one object.
type Action string

// The actions. Make makes an object that is not there; Remake removes the
// leftover of a killed restore and makes it anew; Keep leaves an equal object
// alone, Adopted one that only resembles the image's; Replaced removes what is
// in the way. Filled gives one that was made and never used the image's content,
// in place of none. Leave leaves an object alone, or leaves it missing, because of what
// was restored before; Remove removes one that the image no longer has. Conflict
// means that the policy forbids to go on.
const (
	Make     Action = "make"
	Remake   Action = "remake"
	Keep     Action = "keep"
	Adopted  Action = "adopt"
	Replaced Action = "replace"
	Filled   Action = "fill"
	Leave    Action = "leave"
	Remove   Action = "remove"
	Conflict Action = "conflict"
)

// Step is an action with its object.
type Step struct {
	Object string `json:"object"` // "queue 4242 (key 0x1234)"
	Action Action `json:"action"`
	Reason string `json:"reason,omitempty"`
}

// Size counts what is copied or restored.
type Size struct {
	Objects  int   `json:"objects"`
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"` // of payload
}
