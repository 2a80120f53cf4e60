package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// A subject is a worker that one of the programs checkpoints and restores, with
// the CRIU configuration that it was started with.
type subject interface {
	pid(t testing.TB) int
	// save checkpoints it: it is gone then, unless told --leave-running.
	save(t testing.TB, args ...string) error
	load(t testing.TB) error // brings it back, with its old name
	logs() string
}

// A way starts subjects.
type way struct {
	name  string
	needs []string
	start func(t testing.TB, c *crew, conf string) subject
}

var (
	byCRIU   = way{"criu", []string{"criu"}, startByCRIU}
	byRunc   = way{"runc", []string{"criu", "runc"}, func(t testing.TB, c *crew, conf string) subject { return startByRunc(t, c, conf) }}
	byPodman = way{"podman", []string{"criu", "podman"}, startByPodman}
)

// each runs a test once for each way.
func each(t *testing.T, ways []way, test func(t *testing.T, w way)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			nstest.Require(t, w.needs...)
			leavesNothing(t)
			test(t, w)
		})
	}
}

func nsOf(t testing.TB, s subject) *nsenter.Namespace {
	t.Helper()
	return namespaceOf(t, s.pid(t))
}

// briefly does something with a subject's namespace, and holds that no longer: it
// is to end with the subject.
func briefly(t testing.TB, s subject, do func(*nsenter.Namespace)) {
	t.Helper()
	ns, err := nsenter.OpenPID(s.pid(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	do(ns)
}

func mustSave(t testing.TB, s subject, args ...string) {
	t.Helper()
	if err := s.save(t, args...); err != nil {
		t.Fatalf("checkpoint: %v\n%s", err, s.logs())
	}
}

func mustLoad(t testing.TB, s subject) {
	t.Helper()
	if err := s.load(t); err != nil {
		t.Fatalf("restore: %v\n%s", err, s.logs())
	}
}

// A criuSubject runs on the host itself, but for its IPC namespace.
type criuSubject struct {
	k         *task
	dir, conf string
	through   []string // what its checkpoints are started with
}

func startByCRIU(t testing.TB, c *crew, conf string) subject {
	t.Helper()
	return startInNamespace(t, c, conf, nstest.Fresh(t))
}

func startInNamespace(t testing.TB, c *crew, conf string, ns *nsenter.Namespace) *criuSubject {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.dir, "worker"), c.roles...)
	cmd.Dir, cmd.Env = "/", []string{workerEnv + "=" + c.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Run(cmd.Start); err != nil {
		t.Fatal(err)
	}
	k := (&task{wait: sync.OnceValue(cmd.Wait)}).started(t, cmd, 0)
	return &criuSubject{k: k, dir: imagesDir(t), conf: conf}
}

func (s *criuSubject) pid(testing.TB) int { return s.k.pid }
func (s *criuSubject) logs() string       { return hookSaid(s.dir) }

func (s *criuSubject) save(t testing.TB, args ...string) error {
	t.Helper()
	err := s.criu("dump.log", append([]string{"dump", "-t", strconv.Itoa(s.k.pid)}, args...)...)
	if err == nil && len(args) == 0 {
		s.k.kill(t)
	}
	return err
}

func (s *criuSubject) load(t testing.TB) error {
	t.Helper()
	pidfile := filepath.Join(s.dir, "pid")
	os.Remove(pidfile)
	if err := s.criu("restore.log", "restore", "--restore-detached", "--restore-sibling", "--pidfile", pidfile); err != nil {
		s.reap()
		return err
	}
	process, err := os.FindProcess(readPID(t, pidfile))
	if err != nil {
		return err
	}
	k := &task{pid: process.Pid, wait: sync.OnceValue(func() error { _, err := process.Wait(); return err })}
	t.Cleanup(func() { k.kill(t) })
	s.k = k
	return nil
}

// reap frees the pid that a failed restore has made a child of ours with.
func (s *criuSubject) reap() {
	if parent, err := parentOf(s.k.pid); err == nil && parent == strconv.Itoa(os.Getpid()) {
		unix.Kill(s.k.pid, unix.SIGKILL)
		unix.Wait4(s.k.pid, nil, 0, nil)
	}
}

func (s *criuSubject) criu(log string, args ...string) error {
	var through []string
	if args[0] == "dump" {
		through = s.through
	}
	cmd := started(through, "criu", append(args, "-D", s.dir, "-o", log, "-v4")...)
	if s.conf != "" {
		cmd.Env = append(os.Environ(), "CRIU_CONFIG_FILE="+s.conf)
	}
	return failure(cmd)
}

// failure runs a program and returns its error with what it wrote. It is killed
// when it hangs.
func failure(cmd *exec.Cmd) error {
	hung := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
	out, err := outputOf(cmd)
	hung.Stop()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, without(string(out), "remove cgroup"))
	}
	return nil
}

// A runcSubject is a container of runc's.
type runcSubject struct {
	*container
	dir     string
	through []string
}

func startByRunc(t testing.TB, c *crew, conf string, edits ...specEdit) *runcSubject {
	t.Helper()
	edits = append([]specEdit{c.working, annotated(conf)}, edits...)
	container := startContainer(t, edits...)
	ourContainers = append(ourContainers, container.id)
	return &runcSubject{container: container, dir: imagesDir(t)}
}

// working makes a container run the worker.
func (c *crew) working(spec map[string]any) {
	spec["process"].(map[string]any)["args"] = c.argv()
	spec["mounts"] = append(spec["mounts"].([]any),
		map[string]any{"destination": c.dir, "source": c.dir, "type": "bind", "options": []string{"bind"}})
}

func annotated(conf string) specEdit {
	return func(spec map[string]any) { spec["annotations"] = map[string]string{criuConfig: conf} }
}

func (s *runcSubject) logs() string { return hookSaid(s.dir) }

func (s *runcSubject) save(_ testing.TB, args ...string) error {
	args = append(append([]string{"--root", s.state, "checkpoint"}, args...), "--image-path", s.dir, "--work-path", s.dir, s.id)
	return failure(started(s.through, "runc", args...))
}

func (s *runcSubject) load(testing.TB) error { return s.loadThrough(nil) }

// loadThrough starts the restore with that.
func (s *runcSubject) loadThrough(through []string) error {
	return failure(started(through, "runc", "--root", s.state, "restore", "--detach", "--bundle", s.bundle,
		"--image-path", s.dir, "--work-path", s.dir, s.id))
}

func (s *runcSubject) mustLoadThrough(t testing.TB, through []string) {
	t.Helper()
	if err := s.loadThrough(through); err != nil {
		t.Fatalf("restore: %v\n%s", err, s.logs())
	}
}

// A podmanSubject is a container of podman's.
type podmanSubject struct {
	*podman
	name    string
	through []string
}

func startByPodman(t testing.TB, c *crew, conf string) subject {
	t.Helper()
	return newPodman(t).worker(t, c, conf, "one")
}

// worker starts a container that runs a worker, with more options for podman run.
func (p *podman) worker(t testing.TB, c *crew, conf, name string, options ...string) *podmanSubject {
	t.Helper()
	args := []string{"run", "--detach", "--name", name, "--annotation", criuConfig + "=" + conf, "--volume", c.dir + ":" + c.dir}
	p.run(t, append(append(append(args, options...), image), c.argv()...)...)
	return &podmanSubject{podman: p, name: name}
}

func (s *podmanSubject) pid(t testing.TB) int { t.Helper(); return s.podman.pid(t, s.name) }
func (s *podmanSubject) logs() string         { return hookSaid(s.podman.dir) }

func (s *podmanSubject) save(_ testing.TB, args ...string) error {
	if s.through != nil {
		args = append(args, "--keep") // the log tells which way it went
	}
	return s.failure(s.through, append(append([]string{"container", "checkpoint"}, args...), s.name)...)
}

func (s *podmanSubject) load(testing.TB) error { return s.failure(nil, "container", "restore", s.name) }

func (s *podmanSubject) failure(through []string, args ...string) error {
	out, err := s.tryThrough(through, args...)
	if err != nil {
		return errors.New(strings.TrimSpace(out))
	}
	return nil
}
