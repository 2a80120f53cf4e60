package criuhook

import (
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// warnHost tells of a container in the host's IPC namespace: the queues there are
// everybody's, and neither CRIU nor the hook saves any.
func (r *run) warnHost(ns *nsenter.Namespace) error {
	size, err := plugin.Count(ns, r.Kinds)
	if err == nil && size.Objects > 0 {
		r.warn("the container is in the host's IPC namespace: no queue is saved")
	}
	return err
}
