package criuhook

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/restoring"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// kept is what is remembered of an action until CRIU has ended: its outcome, and
// what a later action wants to know.
type kept struct {
	Device uint64 `json:"device"` // of the images directory: one CRIU may dump twice
	Inode  uint64 `json:"inode"`
	Error  string `json:"error,omitempty"`

	// Of pre-dump:
	Warnings []string `json:"warnings,omitempty"` // for the dump's JSON file
	Since    int64    `json:"since_ns,omitempty"` // moment before CRIU wrote anything, as files are stamped
	Held     bool     `json:"held,omitempty"`     // the neighbours are stopped
	// InDoubt: some of them may not be, that somebody else has stopped, or that were born
	// too fast to be looked at.
	InDoubt bool `json:"in_doubt,omitempty"`
	// Loose are the processes of those that are not, each of which may end before it is
	// asked for. LooseMore: there are others.
	Loose     []int `json:"loose,omitempty"`
	LooseMore bool  `json:"loose_more,omitempty"`
	HeldBy    int64 `json:"held_by_ns,omitempty"` // moment when the last one was stopped, by the clock of Since

	// Of pre-restore:
	LeftToCRIU bool `json:"left_to_criu,omitempty"` // the queues could not be kept from it
}

func (k *kept) err() error {
	if k.Error == "" {
		return nil
	}
	return errors.New(k.Error)
}

// recall returns what is remembered of an action of this CRIU run.
func (r *run) recall(action string) (k kept, found bool, err error) {
	if r.state == nil {
		return k, false, nil
	}
	content, err := r.state.Read(restoring.AnswerName(r.CRIU, action))
	if errors.Is(err, unix.ENOENT) {
		return k, false, nil
	}
	if err != nil {
		return k, false, err
	}
	if err := json.Unmarshal(content, &k); err != nil {
		return k, false, fmt.Errorf("%s: %w", r.state.Join(restoring.AnswerName(r.CRIU, action)), err)
	}
	device, inode, err := r.directory()
	return k, k.Device == device && k.Inode == inode, err
}

// remember keeps what the action came to. Without a state directory it comes to
// the same a second time.
func (r *run) remember(outcome error) error {
	if r.state == nil {
		return nil
	}
	var err error
	if r.kept.Device, r.kept.Inode, err = r.directory(); err != nil {
		return err
	}
	if outcome != nil {
		r.kept.Error = eventlog.BoundError(r.readable(outcome.Error()))
	}
	r.kept.Warnings = eventlog.Bound(r.warned)
	content, err := json.Marshal(&r.kept)
	if err != nil {
		return err
	}
	if err = r.state.Replace(restoring.AnswerName(r.CRIU, r.Action), content); isFull(err) && r.Action != PreDump && r.Action != PreRestore {
		return nil // as without a state directory: nothing later asks for it
	}
	return err
}

// directory tells the images directory from others.
func (r *run) directory() (device, inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(r.ImagesDir, &st); err != nil {
		return 0, 0, fmt.Errorf("stat images directory %s: %w", r.ImagesDir, err)
	}
	return uint64(st.Dev), st.Ino, nil
}

// sweep removes what is remembered, under these names, of CRIUs that have ended.
func sweep(dir *state.Dir, names []string) {
	for _, name := range names {
		criu, action, ok := restoring.ParseAnswerName(name)
		if ok && action != due && !criu.Foreign() && !criu.Alive() {
			_ = dir.Remove(name) // by the next run, if not by this one
		}
	}
}
