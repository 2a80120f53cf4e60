package plugin

import (
	"errors"
	"fmt"
)

// ErrHost says that a restore would have made objects in the host's IPC namespace
// without having been asked for that (RestoreOptions.Host). Nothing was changed.
var ErrHost = errors.New("every program on the host can reach it")

// allowed refuses the host's namespace to those who have not named it: the pid of
// any process that is in no container leads there.
func (o *RestoreOptions) allowed() error {
	if o.Host || !o.Namespace.IsHost() {
		return nil
	}
	return fmt.Errorf("restore %s into %s: %w, so nothing was done: name a process of the container, or give --host if the host's is meant",
		o.Dir, o.Namespace, ErrHost)
}
