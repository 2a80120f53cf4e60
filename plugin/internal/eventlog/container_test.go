package eventlog

import (
	"os"
	"strings"
	"testing"
)

var (
	one   = strings.Repeat("1a", 32)
	other = strings.Repeat("2b", 32)
)

// The names of cgroups are those of runc and crun under Podman, CRI-O, containerd and
// Docker, with either of the cgroup drivers.
func TestIDInCgroups(t *testing.T) {
	for cgroups, want := range map[string]string{
		"":                                  "",
		"0::/\n":                            "",
		"0::/user.slice/web\n":              "",
		"12:pids:/libpod_parent/libpod-1\n": "",
		"0::/libpod_parent/libpod-" + one:   one,
		"0::/machine.slice/libpod-" + one + ".scope/container\n":                                                         one,
		"4:memory:/\n3:pids:/libpod_parent/" + other + "/libpod-" + one + "\n0::/\n":                                     one,
		"0::/machine.slice/machine-libpod_pod_" + other + ".slice/libpod-" + one + ".scope":                              one,
		"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7d_c4.slice/cri-containerd-" + one + ".scope": one,
		"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod7d_c4.slice/crio-" + one + ".scope":         one,
		"0::/kubepods/burstable/pod7d2b3a44-1111-2222-3333-444444444444/" + one:                                          one,
		"0::/docker/" + one:                         one,
		"0::/system.slice/docker-" + one + ".scope": one,
		"0::/docker/" + one + "/libpod-" + other:    one, // a container's own, of any name
		"0::/libpod-" + strings.ToUpper(one):        "",
		"0::/libpod-" + one + "0":                   "",
		"0::/libpod-" + one[1:]:                     "",
		"nonsense " + one:                           "",
		"0::/a:b/" + one:                            one,
	} {
		if got := idInCgroups([]byte(cgroups)); got != want {
			t.Errorf("%q: %q, want %q", cgroups, got, want)
		}
	}
}

func TestIDInPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "/": "", "relative": "", ".": "", "/tmp/checkpoint": "",
		"/var/lib/containers/storage/overlay-containers/" + one + "/userdata/checkpoint": one,
		"/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + one:                    one,
		"/" + other + "/" + one + "/work":                                                one,
		one:                                                                              one,
		"/tmp/" + one + "x":                                                              "",
	} {
		if got := idInPath(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

// A process that is in no container, and one that has ended, have none; then the path
// counts.
func TestContainer(t *testing.T) {
	for _, pid := range []int{0, os.Getpid(), 1 << 30} {
		if got := Container(pid, pid, "/tmp/x"); got != "" {
			t.Errorf("process %d: %q", pid, got)
		}
		if got := Container(pid, pid, "/x/"+one+"/userdata"); got != one {
			t.Errorf("process %d with the images of %s: %q", pid, one, got)
		}
	}
	dir := t.TempDir() + "/" + other
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if got := Container(0, os.Getpid(), "/x/"+one); got != other {
		t.Errorf("criu at work in %s: %q", dir, got)
	}
}
