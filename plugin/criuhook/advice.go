package criuhook

import (
	"errors"
	"fmt"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/config"
)

// settings are those that decide about conflicts, and what they can be.
var settings = map[plugin.Remedy]string{
	plugin.RemedyExisting: `existing = "adopt"`,
	plugin.RemedyLater:    `later = "keep"`,
	plugin.RemedyInPlace:  `in_place = "keep" or "rollback"`,
	plugin.RemedyAgain:    `again = "keep" or "rollback"`,
}

// advise adds to conflicts what the reader of CRIU's log can do about them, who
// cannot give the hook a flag.
func (r *run) advise(err error, ns *nsenter.Namespace) error {
	conflict, is := errors.AsType[*plugin.ConflictError](err)
	if !is {
		return err
	}
	if setting, known := settings[conflict.Remedy]; known {
		return fmt.Errorf("%w; %s in %s decides otherwise, or for this once: %s", err, setting, config.Path, r.byHand(ns))
	}
	return fmt.Errorf("%w; %s", err, r.byHand(ns))
}

// byHand is the command that puts the image's objects in the place of those that are
// there, for one time. It takes a process that is in the namespace when this
// restore has failed; without one somebody has pinned it.
func (r *run) byHand(ns *nsenter.Namespace) string {
	where := "--ns PATH"
	if ns.IsHost() {
		where = "--pid 1 --host"
	} else if neighbours, err := r.family().neighboursIn(ns); err == nil && len(neighbours) > 0 {
		where = fmt.Sprint("--pid ", neighbours[0])
	}
	return fmt.Sprintf("ipc-cr restore %s --images-dir %q --on-conflict replace, and then restore again", where, r.dirName())
}
