package plugin

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// target is the namespace an operation works on, as the kinds see it and as the
// engine does.
type target struct {
	kind.Target
	ns     *nsenter.Namespace
	space  *linux.Space
	source images.Source // the namespace's identity for the JSON file
	host   bool
	still  atomic.Bool // tasks are stopped by us
}

// identifier tells what names a namespace; tests have one of their own.
type identifier func(*nsenter.Namespace) (nsenter.Identity, error)

// newTarget looks at the namespace from outside: at nothing that the prelude may
// be putting back. nil identifies it by Identity.
func newTarget(ns *nsenter.Namespace, identify identifier) (*target, error) {
	owner, err := ns.Owner()
	if err != nil {
		return nil, err
	}
	space := linux.NewSpace(ns, owner)
	source, err := sourceOf(ns, identify)
	if err != nil {
		return nil, err
	}
	t := &target{ns: ns, space: space, source: source, host: ns.IsHost()}
	t.Target = kind.Target{
		Space:  space,
		Owner:  owner,
		Limits: limits.NewKeeper(ns, space),
		Done:   &kind.Progress{},
	}
	if t.host {
		t.Limits.Forbid("limits of the host's IPC namespace")
	}
	return t, nil
}

// root returns the root of the user namespace that owns the IPC namespace: the
// user as whom CRIU reads the images of it.
func (t *target) root() (uid, gid uint32, err error) {
	uid, uidOK := t.Owner.UIDs.Out(0)
	gid, gidOK := t.Owner.GIDs.Out(0)
	if !uidOK || !gidOK {
		return 0, 0, fmt.Errorf("%s: the user namespace that owns it has no root: uid 0 and gid 0 must be mapped", t.ns)
	}
	return uid, gid, nil
}

func sourceOf(ns *nsenter.Namespace, identify identifier) (images.Source, error) {
	if identify == nil {
		identify = (*nsenter.Namespace).Identity
	}
	id, err := identify(ns)
	if err != nil {
		return images.Source{}, err
	}
	return sourceFrom(id), nil
}

// Progress is told how many messages of how many are done, about ten times a
// second and never while tasks are stopped.
type Progress func(done, total int64)

// watch calls progress until the function it returns is called.
func (t *target) watch(progress Progress, total func() int64) (stop func()) {
	if progress == nil {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				if !t.still.Load() {
					progress(t.Done.Messages(), total())
				}
			}
		}
	}()
	return func() { close(quit); <-ended }
}
