package plugin

import (
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
)

// Kind is a kind of IPC objects: msgq.Kind, ipcvar.Kind. In a slice of kinds
// those that hold objects come first, and the limits that bound them last: that
// is the order in which a restore opens them.
type Kind = kind.Kind

// Policy says what a restore does about an object that stands in the way.
type Policy = kind.Policy

// The policies. Fail changes nothing and says which. Adopt keeps an object with
// the same key, id, owner and mode, whatever it holds; a private one is never
// adopted. Replace removes it.
const (
	Fail    = kind.Fail
	Adopt   = kind.Adopt
	Replace = kind.Replace
)

// Action is what a restore does about one object.
type Action = kind.Action

// The actions, see package kind for their meaning.
const (
	ActionMake     = kind.Make
	ActionRemake   = kind.Remake
	ActionKeep     = kind.Keep
	ActionAdopt    = kind.Adopted
	ActionReplace  = kind.Replaced
	ActionFill     = kind.Filled
	ActionLeave    = kind.Leave
	ActionRemove   = kind.Remove
	ActionConflict = kind.Conflict
)

// Step is an action with its object.
type Step = kind.Step

// Size counts objects, their messages and the bytes of payload.
type Size = kind.Size

// LimitChange is a sysctl that was raised for a moment and put back.
type LimitChange = limits.Change

// Kept is what a kind counts in a report.
type Kept struct {
	Kind string `json:"kind"`
	Size
}
