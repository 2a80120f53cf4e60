package msgq

import (
	"fmt"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// mapIn fills in a queue's ids as the user namespace that owns the IPC
// namespace knows them. CRIU writes 4294967295 for one that it does not know,
// and then cannot restore the queue.
func mapIn(head *images.Queue, q *kernel.Queue, owner *nsenter.Owner) error {
	return translate([]translation{
		{"owner uid", owner.UIDs.In, q.UID, &head.UID},
		{"owner gid", owner.GIDs.In, q.GID, &head.GID},
		{"creator uid", owner.UIDs.In, q.CUID, &head.CUID},
		{"creator gid", owner.GIDs.In, q.CGID, &head.CGID},
	})
}

// mapOut returns the ids of a queue of an image as the caller knows them.
func mapOut(head *images.Queue, owner *nsenter.Owner) (owners, creators kernel.Creator, err error) {
	err = translate([]translation{
		{"owner uid", owner.UIDs.Out, head.UID, &owners.UID},
		{"owner gid", owner.GIDs.Out, head.GID, &owners.GID},
		{"creator uid", owner.UIDs.Out, head.CUID, &creators.UID},
		{"creator gid", owner.GIDs.Out, head.CGID, &creators.GID},
	})
	return owners, creators, err
}

type translation struct {
	what string
	with func(uint32) (uint32, bool)
	from uint32
	to   *uint32
}

func translate(all []translation) error {
	for _, t := range all {
		id, ok := t.with(t.from)
		if !ok {
			return fmt.Errorf("%s %d has no mapping in the user namespace that owns the IPC namespace", t.what, t.from)
		}
		*t.to = id
	}
	return nil
}
