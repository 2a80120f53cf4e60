// Package record keeps, for each IPC namespace, what was restored into it: so
// that what was saved once is restored once. A record is a file of the state
// directory (package state), named by the namespace, and is about the running
// system: it ends with the namespace.
//
// It holds facts, no rules: what a restore makes of them is decided by the
// engine (package plugin). It knows no kind of object; a kind gives each object
// a name and numbers of its own choice.
package record

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// ErrDamaged marks a record that this ipc-cr did not write, or that was changed.
var ErrDamaged = errors.New("not a record of this ipc-cr")

// Record is what was restored into one namespace, and taken of it.
type Record struct {
	Target  nsenter.Identity
	Taken   []Taken  // checkpoints of the namespace itself, the latest last
	Sources []Source // the namespaces whose checkpoints were restored into it
}

// Snapshot is a checkpoint. Of one namespace no two have the same Boottime.
type Snapshot struct {
	Boottime int64     // CLOCK_BOOTTIME in ns, as the images' JSON file has it; 0 is none
	Created  time.Time // to the second
	Dir      string    // images directory, as it was named
}

// String names the checkpoint for a person.
func (s Snapshot) String() string {
	return "the checkpoint of " + s.Created.Format(time.RFC3339) + " in " + s.Dir
}

// Taken is a checkpoint of the namespace itself.
type Taken struct {
	Snapshot
	LeftRunning bool // the container went on after it
}

// Source is what was restored from one namespace.
type Source struct {
	Namespace nsenter.Identity // as the images' JSON file claims it
	Snapshot  Snapshot         // restored last; its Boottime is 0 before the first is complete
	Objects   Objects          // of Snapshot
	Ran       []Ran            // restores after which a container ran
	Pending   *Pending         // a restore under way, or one that was interrupted
}

// Ran is a restore of a checkpoint after which its container came to run: what
// it was restored for has happened.
type Ran struct {
	Boottime int64               // of the checkpoint
	Second   int64               // before it ran, as the kernel stamps objects
	Uptime   int64               // CLOCK_BOOTTIME in ns at that moment
	Absent   map[string][]string // names of objects that were not there, by their kind
}

// Pending is a restore that has begun.
type Pending struct {
	Snapshot Snapshot
	Sealing  bool    // all objects are made; some may be in use
	Makes    Objects // objects of Snapshot that it makes
	Leaves   Objects // those that it leaves as they are, or are not
}

// Objects is the objects of each kind, by the kind's name.
type Objects map[string][]Object

// Object is one object of a checkpoint.
type Object struct {
	Name string   // tells it from every other of its kind and namespace, now and later
	Sum  uint32   // CRC-32C of its content
	Head []uint32 // what else the image says of it, in the kind's own order
	// Left is what the restore left in it that no image says, in the kind's own
	// order. Without it nothing is known: no restore has made it.
	Left []int64
}

// Same reports whether two checkpoints hold the same of an object.
func (o *Object) Same(other *Object) bool {
	return o.Name == other.Name && o.Sum == other.Sum && slices.Equal(o.Head, other.Head)
}

// Source returns what was restored from a namespace, nil for nothing.
func (r *Record) Source(id nsenter.Identity) *Source {
	i := slices.IndexFunc(r.Sources, func(s Source) bool { return s.Namespace.Same(id) })
	if i < 0 {
		return nil
	}
	return &r.Sources[i]
}

// AddSource is Source, which it adds if there is none.
func (r *Record) AddSource(id nsenter.Identity) *Source {
	if s := r.Source(id); s != nil {
		return s
	}
	r.Sources = append(r.Sources, Source{Namespace: id})
	return &r.Sources[len(r.Sources)-1]
}

// Restore puts back what was known of a source, nil for nothing.
func (r *Record) Restore(id nsenter.Identity, before *Source) {
	r.Sources = slices.DeleteFunc(r.Sources, func(s Source) bool { return s.Namespace.Same(id) })
	if before != nil {
		r.Sources = append(r.Sources, *before)
	}
}

// WasLeftRunning reports whether the container went on after a checkpoint of the
// namespace.
func (r *Record) WasLeftRunning(boottime int64) bool {
	return slices.ContainsFunc(r.Taken, func(t Taken) bool { return t.Boottime == boottime && t.LeftRunning })
}

// RanAfter returns the last restore of a checkpoint after which its container came
// to run, nil for none.
func (s *Source) RanAfter(boottime int64) *Ran {
	for i := range slices.Backward(s.Ran) {
		if s.Ran[i].Boottime == boottime {
			return &s.Ran[i]
		}
	}
	return nil
}

// Forget takes back what NoteRan added of a checkpoint.
func (s *Source) Forget(boottime int64) {
	s.Ran = slices.DeleteFunc(slices.Clone(s.Ran), func(r Ran) bool { return r.Boottime == boottime })
}

// maxRan bounds a record: of more checkpoints of one source the oldest are
// forgotten.
const maxRan = 256

// NoteRan adds a restore after which a container ran. Of one checkpoint the last
// counts.
func (s *Source) NoteRan(r Ran) {
	s.Forget(r.Boottime)
	s.Ran = append(s.Ran, r)
	if extra := len(s.Ran) - maxRan; extra > 0 {
		s.Ran = slices.Delete(s.Ran, 0, extra)
	}
}

// maxTaken bounds a record: of more checkpoints of one namespace the oldest are
// forgotten.
const maxTaken = 1024

// note adds a checkpoint, or changes what is known of it.
func (r *Record) note(t Taken) {
	r.Taken = slices.DeleteFunc(r.Taken, func(old Taken) bool { return old.Boottime == t.Boottime })
	r.Taken = append(r.Taken, t)
	if extra := len(r.Taken) - maxTaken; extra > 0 {
		r.Taken = slices.Delete(r.Taken, 0, extra)
	}
}

// ByName returns a way to find objects. Of two with one name the first counts.
func ByName(lists ...[]Object) map[string]*Object {
	count := 0
	for _, list := range lists {
		count += len(list)
	}
	found := make(map[string]*Object, count)
	for _, list := range lists {
		for i := range list {
			if found[list[i].Name] == nil {
				found[list[i].Name] = &list[i]
			}
		}
	}
	return found
}

// sortedKeys returns the kinds' names in order.
func sortedKeys[V any](byKind map[string]V) []string { return slices.Sorted(maps.Keys(byKind)) }
