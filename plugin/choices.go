package plugin

// RecordUse says what a restore does where it cannot keep the record of what was
// restored into the namespace (/run/ipc-cr).
type RecordUse int

// RecordOptional goes on without a record, silently where there is no place for
// one, as in a user namespace. RecordWanted goes on with a warning.
// RecordRequired fails before anything is made: for a namespace that several
// restores share.
const (
	RecordOptional RecordUse = iota
	RecordWanted
	RecordRequired
)

// InPlace says what Adopt does with a checkpoint of the very namespace, if an
// object has changed since. The zero InPlace is InPlaceRefuse where the container was
// left running, because its own later work cannot be told from its neighbours',
// and InPlaceKeep where its checkpoint stopped it.
type InPlace string

// InPlaceKeep leaves alone what has changed, InPlaceRollback makes it as the
// checkpoint has it.
const (
	InPlaceRefuse   InPlace = "refuse"
	InPlaceKeep     InPlace = "keep"
	InPlaceRollback InPlace = "rollback"
)

// Later says what Adopt does with a checkpoint that is later than the one that was
// restored before, if an object that differs between the two has been used since.
type Later string

// The zero Later is LaterRefuse. LaterKeep leaves such an object alone.
const (
	LaterRefuse Later = "refuse"
	LaterKeep   Later = "keep"
)

// Again says what Adopt does with a checkpoint that was restored into the namespace
// before, and whose container ran after that (NoteRan), if an object has been used
// since: what it was restored for cannot happen a second time.
type Again string

// The zero Again is AgainRefuse. AgainKeep leaves such objects alone,
// AgainRollback makes them as the checkpoint has them.
const (
	AgainRefuse   Again = "refuse"
	AgainKeep     Again = "keep"
	AgainRollback Again = "rollback"
)

// Existing says what Adopt does about an object that has the key, the id, the owner
// and the mode of the image's and differs otherwise, and of which nothing is known. One
// that nobody has used since it was made is filled in any case, unless it is the
// host's.
type Existing string

// The zero Existing is ExistingRefuse. ExistingAdopt keeps the object, with a
// warning, whatever it holds.
const (
	ExistingRefuse Existing = "refuse"
	ExistingAdopt  Existing = "adopt"
)
