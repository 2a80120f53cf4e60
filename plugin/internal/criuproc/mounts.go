package criuproc

import (
	"path/filepath"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/internal/mountinfo"
)

// place is where a path leads: the device of a file system, and a path within
// that. It is found by the names of the mounts alone. To look the path up in
// another process's mount namespace could take forever, where a user's own file
// system is mounted (FUSE).
type place struct{ device, path string }

// mount is a line of proc_pid_mountinfo(5).
type mount struct{ id, parent, device, root, point string }

// placeOf finds the place of an absolute path without symbolic links in the text
// of proc_pid_mountinfo(5). Not ok if no mount is at the root, as in a chroot(2).
func placeOf(text, path string) (found place, ok bool) {
	mounts := readMounts(text)
	at, ok := rootOf(mounts)
	if !ok {
		return place{}, false
	}
	for range mounts {
		next, deeper := at.towards(path, mounts)
		if !deeper {
			break
		}
		at = next
	}
	within := strings.TrimPrefix(path, strings.TrimSuffix(at.point, "/"))
	return place{at.device, filepath.Join(at.root, within)}, true
}

func readMounts(text string) (mounts []mount) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 5 {
			mounts = append(mounts, mount{id: f[0], parent: f[1], device: f[2], root: mountinfo.Unescape(f[3]), point: mountinfo.Unescape(f[4])})
		}
	}
	return mounts
}

// rootOf is the mount at the root whose parent is out of sight.
func rootOf(mounts []mount) (root mount, ok bool) {
	ids := map[string]bool{}
	for _, m := range mounts {
		ids[m.id] = true
	}
	for _, m := range mounts {
		if m.point == "/" && (!ids[m.parent] || m.parent == m.id) {
			return m, true
		}
	}
	return mount{}, false
}

// towards is the next mount on the way to a path: of those that are mounted on
// this one, the one that the way comes by first. The last line of several is the
// upper one.
func (m mount) towards(path string, mounts []mount) (next mount, deeper bool) {
	for _, n := range mounts {
		if n.parent == m.id && n.id != m.id && covers(n.point, path) && (!deeper || len(n.point) <= len(next.point)) {
			next, deeper = n, true
		}
	}
	return next, deeper
}

func covers(point, path string) bool {
	return point == "/" || path == point || strings.HasPrefix(path, point+"/")
}
