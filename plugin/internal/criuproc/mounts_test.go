package criuproc

import (
	"os"
	"testing"
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
