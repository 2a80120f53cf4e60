package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// noteFormat is raised when an older ipc-cr could misread a note.
const noteFormat = 1

// note is the content of a guard's file in the state directory.
type note struct {
	Format    int              `json:"format"`
	Created   string           `json:"created"` // RFC 3339
	Namespace nsenter.Identity `json:"namespace"`
	Root      *Root            `json:"root,omitempty"`
	Owner     state.Process    `json:"owner"` // who changes the things
	Guard     state.Process    `json:"guard"` // zero before there is one
	Things
}

// maxTasks bounds the tasks that stand for a namespace without an id: a note
// has a limited size.
const maxTasks = 256

func newNote(ns *nsenter.Namespace, root *Root) (note, error) {
	identity, err := ns.Identity()
	if err != nil {
		return note{}, err
	}
	if len(identity.Tasks) > maxTasks {
		identity.Tasks = identity.Tasks[:maxTasks]
	}
	self, err := state.Self()
	return note{
		Format: noteFormat, Created: time.Now().Format(time.RFC3339),
		Namespace: identity, Root: root, Owner: self,
	}, err
}

// The names of notes: one for each namespace, so that its file is the proof of whose
// turn it is.
const notePrefix, noteSuffix = "guard-", ".json"

// fileName names the note's file.
func (n *note) fileName() string { return nameOf(n.Namespace.ID, n.Namespace.Inode) }

// noteName names the file of a namespace's note.
func noteName(ns *nsenter.Namespace) (string, error) {
	id, err := ns.ID()
	return nameOf(id, ns.Inode()), err
}

func nameOf(id, inode uint64) string {
	return notePrefix + state.NamespaceName(id, inode) + noteSuffix
}

func isNoteName(name string) bool {
	return strings.HasPrefix(name, notePrefix) && strings.HasSuffix(name, noteSuffix)
}

// parseNote reads what may have been damaged or planted.
func parseNote(content []byte) (note, error) {
	var n note
	in := json.NewDecoder(bytes.NewReader(content))
	in.DisallowUnknownFields()
	if err := in.Decode(&n); err != nil {
		return note{}, fmt.Errorf("not a note of this ipc-cr: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return note{}, errors.New("not a note of this ipc-cr: something follows it")
	}
	if n.Format != noteFormat {
		return note{}, fmt.Errorf("format %d, this ipc-cr knows %d", n.Format, noteFormat)
	}
	if n.Namespace.BootID == "" || n.Owner.PID <= 0 {
		return note{}, errors.New("without namespace or owner")
	}
	return n, n.Things.check()
}

// otherBoot says that the note was made before the last boot, so that neither
// its processes nor its namespace exist.
func (n *note) otherBoot() bool {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return err == nil && strings.TrimSpace(string(boot)) != n.Namespace.BootID
}

// notePlace is a note and where it is.
type notePlace struct {
	dir  *state.Dir
	name string
	note note
}

// create writes the note for the first time, with nothing in it. EEXIST if the
// namespace has one.
func (p *notePlace) create() error {
	content, err := json.Marshal(p.note)
	if err != nil {
		return err
	}
	return p.dir.Create(p.name, content)
}

// write notes the things that the guard with that pid is going to be told.
func (p *notePlace) write(guard int, things Things) error {
	process, err := state.Lookup(guard)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
		return err // a dead one is found out when it is told
	}
	p.note.Guard, p.note.Things = process, things
	content, err := json.Marshal(p.note)
	if err != nil {
		return err
	}
	return p.dir.Replace(p.name, content)
}
