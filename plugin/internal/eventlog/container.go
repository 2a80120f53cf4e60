package eventlog

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// idLen is the length of a container's id, in hexadecimal digits, as Podman, CRI-O,
// containerd and Docker give it. runc and crun take any name, which nothing that CRIU
// says leads to.
const idLen = 64

// Container returns the id of the container that CRIU works on, "" if none is found.
// CRIU does not say it. It is looked for in the cgroup of the container's first
// process, in the working directory of criu, which is Podman's directory of the
// container, and in the path of the images directory. init and criu are pids, 0 if
// not known.
//
// It is for people to find an entry by, and for nothing else.
func Container(init, criu int, dir string) string {
	if init > 0 {
		cgroups, _ := os.ReadFile("/proc/" + strconv.Itoa(init) + "/cgroup")
		if id := idInCgroups(cgroups); id != "" {
			return id
		}
	}
	if criu > 0 {
		cwd, _ := os.Readlink("/proc/" + strconv.Itoa(criu) + "/cwd")
		if id := idInPath(cwd); id != "" {
			return id
		}
	}
	return idInPath(dir)
}

// idInCgroups looks through the lines of /proc/PID/cgroup (cgroups(7)).
func idInCgroups(content []byte) string {
	for line := range bytes.Lines(content) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(fields) < 3 {
			continue
		}
		if id := idInCgroup(fields[2]); id != "" {
			return id
		}
	}
	return ""
}

// idInCgroup takes the first id on the way down: below its own cgroup a container
// may make others, of any name. The pods of Podman have ids, too.
func idInCgroup(path string) string {
	above := ""
	for part := range strings.SplitSeq(path, "/") {
		name := strings.TrimSuffix(part, ".scope")
		prefix, id := "", name
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			prefix, id = name[:i], name[i+1:]
		}
		pod := prefix == "" && above == "libpod_parent"
		if isID(id) && !pod {
			return id
		}
		above = part
	}
	return ""
}

// idInPath takes the last id, as the one of the innermost directory.
func idInPath(path string) string {
	for dir := path; len(dir) > 1; dir = filepath.Dir(dir) {
		if id := filepath.Base(dir); isID(id) {
			return id
		}
		if !strings.Contains(dir, "/") {
			break
		}
	}
	return ""
}

func isID(text string) bool {
	return len(text) == idLen && strings.Trim(text, "0123456789abcdef") == ""
}
