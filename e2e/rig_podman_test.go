package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A podman has storage, state and configuration of its own, so that it neither
// sees nor leaves anything of the machine's.
type podman struct {
	dir string
	env []string
}

// image is the one image that newPodman makes.
const image = "localhost/ipc-cr-e2e"

// podmanConf takes limits that need no CAP_SYS_RESOURCE, no network (it needs
// programs of its own), and locks in files, which unlike the default ones in
// /dev/shm are this podman's.
const podmanConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
`

func newPodman(t testing.TB) *podman {
	t.Helper()
	dir, err := os.MkdirTemp(shared(t), "p") // podman refuses a runroot of more than 50 bytes
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte(podmanConf), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &podman{dir: dir, env: append(os.Environ(), "CONTAINERS_CONF="+conf)}
	t.Cleanup(func() { p.removeAll(t) })
	p.importImage(t)
	return p
}

func (p *podman) importImage(t testing.TB) {
	t.Helper()
	rootfs, tar := filepath.Join(p.dir, "rootfs"), filepath.Join(p.dir, "rootfs.tar")
	makeRootfs(t, rootfs)
	command(t, "tar", "-C", rootfs, "-cf", tar, ".")
	p.run(t, "import", "--quiet", tar, image)
}

// run runs podman, which must succeed, and returns what it writes.
func (p *podman) run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.try(args...)
	if err != nil {
		t.Fatalf("podman %q: %v\n%s", args, err, out)
	}
	return out
}

func (p *podman) try(args ...string) (string, error) { return p.tryThrough(nil, args...) }

func (p *podman) tryThrough(through []string, args ...string) (string, error) {
	own := []string{"--root", p.dir + "/root", "--runroot", p.dir + "/run", "--tmpdir", p.dir + "/tmp", "--storage-driver", "vfs"}
	cmd := started(through, "podman", append(own, args...)...)
	cmd.Env = p.env
	out, err := outputOf(cmd)
	return string(out), err
}

// start starts a container that holds still, with more options for podman run.
func (p *podman) start(t testing.TB, name string, options ...string) {
	t.Helper()
	args := append([]string{"run", "--detach", "--name", name}, options...)
	p.run(t, append(append(args, image), holdStill...)...)
}

// pid returns the pid of the container's init.
func (p *podman) pid(t testing.TB, name string) int {
	t.Helper()
	out := p.run(t, "inspect", "--format", "{{.State.Pid}}", name)
	pid, err := strconv.Atoi(out)
	if err != nil || pid == 0 {
		t.Fatalf("podman inspect %s: pid %q", name, out)
	}
	return pid
}

// removeAll takes the pods first: a pod goes with its containers, not the other
// way round. Then mounts and the cgroup that podman makes for all containers.
func (p *podman) removeAll(t testing.TB) {
	for _, args := range [][]string{{"pod", "rm", "--all", "--force", "--time", "0"}, {"rm", "--all", "--force", "--time", "0"}} {
		if out, err := p.try(args...); err != nil {
			t.Errorf("podman %q: %v\n%s", args, err, out)
		}
	}
	// conmon starts a last podman for each container, which writes a moment longer.
	waitFor(t, "an end of podman's own", func() bool {
		for _, mount := range []string{"/root/vfs", "/root", "/run"} {
			unix.Unmount(p.dir+mount, unix.MNT_DETACH) // EINVAL where there is none
		}
		return os.RemoveAll(p.dir) == nil
	})
	removeCgroups()
}

// removeCgroups removes what podman leaves when its last container has gone:
// conmon ends a moment later. Another podman's containers keep theirs.
func removeCgroups() {
	parents, _ := filepath.Glob("/sys/fs/cgroup/*/libpod_parent")
	parents = append(parents, "/sys/fs/cgroup/libpod_parent")
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		parents = slices.DeleteFunc(parents, removedCgroup)
		if len(parents) == 0 {
			return
		}
	}
}

func removedCgroup(parent string) bool {
	unix.Rmdir(filepath.Join(parent, "conmon"))
	err := unix.Rmdir(parent)
	return err == nil || errors.Is(err, unix.ENOENT)
}
