package e2e_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A planted is what a user could have put in the place of something of root's,
// as one checkpoint or restore sees it.
type planted struct {
	name   string
	script string // makes it, in a mount namespace that ends with the program
	path   string // what the hook names
}

const ownEtc = `mount -t tmpfs layer /mnt && mkdir -p /mnt/upper/ipc-cr /mnt/work &&
	mount -t overlay etc -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc && cd /etc/ipc-cr && `

var plantedSettings = []planted{
	{"of a user's", ownEtc + `: >config.toml && chown 1000 config.toml`, "/etc/ipc-cr/config.toml"},
	{"that all can write", ownEtc + `: >config.toml && chmod 666 config.toml`, "/etc/ipc-cr/config.toml"},
	{"through a link", ownEtc + `: >real && ln -s real config.toml`, "/etc/ipc-cr/config.toml"},
	{"in a user's directory", ownEtc + `: >config.toml && chown 1000 .`, "/etc/ipc-cr"},
}

var plantedStates = []planted{
	{"of a user's", `mount -t tmpfs -o mode=0700,uid=1000 state /run/ipc-cr`, "/run/ipc-cr"},
	{"that all can write", `mount -t tmpfs -o mode=0777 state /run/ipc-cr`, "/run/ipc-cr"},
}

func (p planted) run(argv ...string) error {
	script := p.script + ` && cd / && exec "$@"`
	return failure(exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh"}, argv...)...))
}

func (p planted) save(s *runcSubject) error {
	return p.run("runc", "--root", s.state, "checkpoint", "--image-path", s.dir, "--work-path", s.dir, s.id)
}

func (p planted) load(s *runcSubject) error {
	return p.run("runc", "--root", s.state, "restore", "--detach", "--bundle", s.bundle,
		"--image-path", s.dir, "--work-path", s.dir, s.id)
}

// refused wants an error that the hook has given, and that names what is planted.
func (p planted) refused(t *testing.T, s *runcSubject, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("it succeeds\n%s", s.logs())
	}
	if !strings.Contains(s.logs(), p.path) {
		t.Errorf("the log does not name %s:\n%s", p.path, s.logs())
	}
}

// Settings that a user could have written are no settings, not even the defaults:
// nothing is done, and what was to be carried is as it was.
func TestHookPlantedSettings(t *testing.T) {
	for _, p := range plantedSettings {
		t.Run(p.name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			c := newCrew(t, talking...)
			s := startByRunc(t, c, hookConf(t))
			refusedBothWays(t, p, c, s)
		})
	}
}

// A place for records that a user could have written is none. A namespace that
// is joined cannot be restored without them.
func TestHookPlantedState(t *testing.T) {
	for _, p := range plantedStates {
		t.Run(p.name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			pod := newRuncPod(t, hookConf(t), talking)
			refusedBothWays(t, p, pod.crews[0], pod.members[0])
		})
	}
}

func refusedBothWays(t *testing.T, p planted, c *crew, s *runcSubject) {
	t.Helper()
	c.works(t)
	everything.make(t, nsOf(t, s))
	saved := queues(t, nsOf(t, s))
	p.refused(t, s, p.save(s))
	compareQueues(t, saved, queues(t, nsOf(t, s)))
	c.works(t)
	saved = queues(t, nsOf(t, s))
	mustSave(t, s)
	p.refused(t, s, p.load(s))
	s.discard(t)
	mustLoad(t, s)
	compareQueues(t, saved, queues(t, nsOf(t, s)))
	c.works(t)
}
