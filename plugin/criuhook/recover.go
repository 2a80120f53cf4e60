package criuhook

import (
	"context"

	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// recover puts right what killed runs have left: image files that are still set
// aside above all. The engine's own operations see to the rest.
func (r *run) recover(ctx context.Context) {
	names, err := r.state.Names()
	if err != nil {
		r.warnings([]string{err.Error()})
	}
	if r.Action == PreDump || r.Action == PreRestore { // nothing is frozen for it
		r.noteAllDue(ctx, names)
	}
	sweep(r.state, names)
	wait := warden.SettleTime
	if r.Action == PostDump { // CRIU has stopped the container
		wait = 0
	}
	recovery := warden.Recover(ctx, r.state, names, wait)
	for _, done := range recovery.Done {
		r.tell(done)
	}
	r.warnings(recovery.Warnings)
}
