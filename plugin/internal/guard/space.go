package guard

import (
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// Root is the root of the user namespace that owns an IPC namespace, as the
// host sees it: who may write its sysctls. It is noted because later there may
// be no task left from which to learn it.
type Root struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// rootOf returns nil if the namespace belongs to the caller's user namespace.
func rootOf(ns *nsenter.Namespace) (*Root, error) {
	owner, err := ns.Owner()
	if err != nil || owner.Own {
		return nil, err
	}
	uid, uidOK := owner.UIDs.Out(0)
	gid, gidOK := owner.GIDs.Out(0)
	if !uidOK || !gidOK {
		return nil, nil // nobody to act as
	}
	return &Root{UID: uid, GID: gid}, nil
}

func openSpace(ns *nsenter.Namespace, root *Root) kernel.Space {
	if root == nil {
		return linux.NewSpace(ns, nil)
	}
	return linux.NewSpace(ns, &nsenter.Owner{
		UIDs: nsenter.IDMap{{Inside: 0, Outside: root.UID, Count: 1}},
		GIDs: nsenter.IDMap{{Inside: 0, Outside: root.GID, Count: 1}},
	})
}
