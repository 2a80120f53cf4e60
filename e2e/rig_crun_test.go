package e2e_test

import (
	"os"
	"os/exec"
	"testing"
)

var byCrun = way{"crun", []string{"criu", "crun"}, startByCrun}

// A crunSubject is a container of crun's. Its CRIU is told of the configuration
// through the environment: the annotation needs CRIU 4.2.
type crunSubject struct {
	*container
	dir, conf string
	through   []string
}

func startByCrun(t testing.TB, c *crew, conf string) subject {
	t.Helper()
	container := startContainerBy(t, "crun", c.working, withoutMasks)
	ourContainers = append(ourContainers, container.id)
	return &crunSubject{container: container, dir: imagesDir(t), conf: conf}
}

func (s *crunSubject) logs() string { return hookSaid(s.dir) }

func (s *crunSubject) save(_ testing.TB, args ...string) error {
	args = append(append([]string{"--root", s.state, "checkpoint"}, args...), "--image-path", s.dir, "--work-path", s.dir, s.id)
	return s.configured(started(s.through, "crun", args...))
}

func (s *crunSubject) load(testing.TB) error {
	return s.configured(exec.Command("crun", "--root", s.state, "restore", "--detach", "--bundle", s.bundle,
		"--image-path", s.dir, "--work-path", s.dir, s.id))
}

func (s *crunSubject) configured(cmd *exec.Cmd) error {
	cmd.Env = append(os.Environ(), "CRIU_CONFIG_FILE="+s.conf)
	return failure(cmd)
}

// withoutMasks takes paths away that crun hides below one empty directory, which
// its own restore does not find again ("No mapping for ... mountpoint").
func withoutMasks(spec map[string]any) {
	delete(linuxOf(spec), "maskedPaths")
}
