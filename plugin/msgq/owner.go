package msgq

import (
	"fmt"
	"slices"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// mapIn fills in a queue's ids as the user namespace that owns the IPC
// namespace knows them. CRIU writes 4294967295 for one that it does not know,
// and then cannot restore the queue.
func mapIn(head *images.Queue, q *kernel.Queue, owner *nsenter.Owner) error {
	var ok [4]bool
	head.UID, ok[0] = owner.UIDs.In(q.UID)
	head.GID, ok[1] = owner.GIDs.In(q.GID)
	head.CUID, ok[2] = owner.UIDs.In(q.CUID)
	head.CGID, ok[3] = owner.GIDs.In(q.CGID)
	if ok == allMapped {
		return nil
	}
	return unmapped(ok, [4]uint32{q.UID, q.GID, q.CUID, q.CGID})
}

// mapOut returns the ids of a queue of an image as the caller knows them.
func mapOut(head *images.Queue, owner *nsenter.Owner) (owners, creators kernel.Creator, err error) {
	var ok [4]bool
	owners.UID, ok[0] = owner.UIDs.Out(head.UID)
	owners.GID, ok[1] = owner.GIDs.Out(head.GID)
	creators.UID, ok[2] = owner.UIDs.Out(head.CUID)
	creators.GID, ok[3] = owner.GIDs.Out(head.CGID)
	if ok == allMapped {
		return owners, creators, nil
	}
	return owners, creators, unmapped(ok, [4]uint32{head.UID, head.GID, head.CUID, head.CGID})
}

var allMapped = [4]bool{true, true, true, true}

// unmapped names the first id without a mapping.
func unmapped(ok [4]bool, ids [4]uint32) error {
	i := slices.Index(ok[:], false)
	what := [4]string{"owner uid", "owner gid", "creator uid", "creator gid"}[i]
	return fmt.Errorf("%s %d has no mapping in the user namespace that owns the IPC namespace", what, ids[i])
}
