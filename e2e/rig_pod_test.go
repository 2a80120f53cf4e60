package e2e_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A runcPod is two containers of runc's in one IPC namespace. The test holds
// that, as the pod's infra container does.
type runcPod struct {
	ns      *nsenter.Namespace
	crews   []*crew
	members []*runcSubject
}

// newRuncPod starts one container for each list of roles.
func newRuncPod(t testing.TB, conf string, roles ...[]string) *runcPod {
	t.Helper()
	p := &runcPod{ns: nstest.Fresh(t)}
	for _, some := range roles {
		c := newCrew(t, some...)
		p.crews = append(p.crews, c)
		p.members = append(p.members, startByRunc(t, c, conf, inIPC(fdPath(p.ns))))
	}
	return p
}

// moveTo makes the containers join another namespace when they are restored.
func (p *runcPod) moveTo(t testing.TB, ns *nsenter.Namespace) {
	t.Helper()
	p.ns = ns
	for _, s := range p.members {
		s.edit(t, inIPC(fdPath(ns)))
	}
}

// goThrough makes the checkpoints of its containers start that way.
func (p *runcPod) goThrough(through []string) {
	for _, s := range p.members {
		s.through = through
	}
}

// A podmanPod is containers of a pod that shares its IPC namespace.
type podmanPod struct {
	*podman
	id      string
	crews   []*crew
	members []*podmanSubject
}

func newPodmanPod(t testing.TB, conf string, roles ...[]string) *podmanPod {
	t.Helper()
	p := &podmanPod{podman: newPodman(t)}
	p.create(t, "first")
	for i, some := range roles {
		c := newCrew(t, some...)
		p.crews = append(p.crews, c)
		p.members = append(p.members, p.worker(t, c, conf, fmt.Sprint("member", i), "--pod", "first"))
	}
	return p
}

// create makes a pod with nothing but its infra container, which runs.
func (p *podmanPod) create(t testing.TB, name string) {
	t.Helper()
	p.id = p.run(t, "pod", "create", "--share", "ipc", "--name", name, "--infra-image", image, "--infra-command", "sleep 900")
	p.run(t, "pod", "start", name)
}

// ns opens the IPC namespace of the pod.
func (p *podmanPod) ns(t testing.TB) *nsenter.Namespace {
	t.Helper()
	return namespaceOf(t, p.pid(t, p.run(t, "pod", "inspect", "--format", "{{.InfraContainerID}}", p.id)))
}

// export checkpoints a member into an archive.
func (p *podmanPod) export(t testing.TB, i int) (archive string) {
	t.Helper()
	archive = filepath.Join(p.dir, p.members[i].name+".tar")
	if err := p.members[i].save(t, "--export", archive, "--compress", "none"); err != nil {
		t.Fatalf("checkpoint: %v\n%s", err, p.members[i].logs())
	}
	return archive
}

// replace puts a fresh pod in the place of this one.
func (p *podmanPod) replace(t testing.TB) {
	t.Helper()
	p.run(t, "pod", "rm", "--force", "--time", "0", p.id)
	p.create(t, "second")
}

// bring restores an archive into the pod.
func (p *podmanPod) bring(archive string) error {
	_, err := p.try("container", "restore", "--import", archive, "--pod", p.id)
	return err
}
