package criuproc

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// The way to a path goes over the mounts that are on it, in whatever order they
// are listed, and not over those that are hidden by others.
func TestPlaceOf(t *testing.T) {
	const script = "/usr/local/bin/hook"
	root := "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	for name, c := range map[string]struct {
		mounts string
		want   place
	}{
		"one file system":    {root + "23 22 0:5 / /usr/lib rw - tmpfs x rw\n", place{"8:1", script}},
		"a sub-volume":       {"22 1 0:31 /@root / rw - btrfs /dev/sda1 rw\n", place{"0:31", "/@root" + script}},
		"another above":      {root + "23 22 0:40 / /usr/local rw shared:1 - overlay x rw\n", place{"0:40", "/bin/hook"}},
		"two on the way":     {"24 23 0:50 / /usr/local/bin rw - tmpfs x rw\n" + root + "23 22 0:40 / /usr rw - tmpfs x rw\n", place{"0:50", "/hook"}},
		"one on the other":   {root + "23 22 0:40 / /usr/local rw - tmpfs x rw\n24 23 0:50 / /usr/local rw - tmpfs x rw\n", place{"0:50", "/bin/hook"}},
		"hidden by a parent": {root + "23 22 0:40 / /usr/local rw - tmpfs x rw\n24 22 0:50 / /usr rw - tmpfs x rw\n", place{"0:50", "/local/bin/hook"}},
		"bound to itself":    {root + "23 22 8:1 /usr /usr ro - ext4 /dev/sda1 rw\n", place{"8:1", script}},
		"the file itself":    {root + "23 22 0:40 /a/b " + script + " ro - tmpfs x rw\n", place{"0:40", "/a/b"}},
		"a name that begins": {root + "23 22 0:40 / /usr/lo rw - tmpfs x rw\n24 22 0:41 / /usr/local/bin/hook2 rw - tmpfs x rw\n", place{"8:1", script}},
		"two roots":          {"22 1 0:1 / / rw - rootfs x rw\n23 22 8:1 /x / rw - ext4 y rw\n", place{"8:1", "/x" + script}},
		"escaped":            {"22 1 8:1 /a\\040b\\134 / rw - ext4 x rw\n", place{"8:1", "/a b\\" + script}},
	} {
		if got, ok := placeOf(c.mounts, script); !ok || got != c.want {
			t.Errorf("%s: %+v, %t, want %+v", name, got, ok, c.want)
		}
	}
	for _, mounts := range []string{"", "22 1 8:1 /x /srv rw - ext4 x rw\n", "junk\n\n"} {
		if got, ok := placeOf(mounts, script); ok {
			t.Errorf("%q: %+v", mounts, got)
		}
	}
}

func TestPlaceHere(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	proc, ok := placeOf(string(mounts), "/proc/self")
	if other, otherOK := placeOf(string(mounts), "/usr/bin"); !ok || !otherOK || proc.path != "/self" || proc.device == other.device {
		t.Errorf("/proc/self %+v, %t, /usr/bin %+v, %t", proc, ok, other, otherOK)
	}
}

// In a mount namespace of its own a criu is one of ours as long as the script's
// path leads to the same file.
func TestOtherMountNamespace(t *testing.T) {
	nstest.Require(t, "userns")
	criu, s := copyOf(t, "sleep", name), script(t)
	for name, c := range map[string]struct {
		mount string
		want  bool
	}{
		"as here":           {"true", true},
		"something else":    {"mount -t tmpfs x " + filepath.Dir(criu), true},
		"the script is not": {"mount -t tmpfs x " + filepath.Dir(s.Path), false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `exec 3<"$1"; `+c.mount+` && echo ready && exec /proc/self/fd/3 900`, "sh", criu)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			pid := start(t, cmd)
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is criu", func() bool {
				exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
				return err == nil && filepath.Base(exe) == "criu"
			})
			if p, is := found(t, s, pid); is != c.want {
				t.Errorf("%+v, %t", p, is)
			}
		})
	}
}

// So is one in a directory that it takes for the root (chroot(2)), of which its mounts
// do not tell.
func TestOtherRoot(t *testing.T) {
	nstest.Require(t, "root")
	criu, s, root := copyOf(t, "perl", name), script(t), t.TempDir()
	for _, same := range []bool{false, true} {
		if same { // another name of the same directory
			below := filepath.Join(root, filepath.Dir(s.Path))
			if err := os.MkdirAll(below, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(filepath.Dir(s.Path), below, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
		}
		cmd := exec.Command(criu, "-e", `chroot($ARGV[0]) or die; $| = 1; print "ready\n"; sleep 900`, root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		pid := start(t, cmd)
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if p, is := found(t, s, pid); is != same {
			t.Errorf("the same script %t: %+v, %t", same, p, is)
		}
	}
}
