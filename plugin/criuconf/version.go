package criuconf

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// answering in time is what a criu must do that is asked for its version.
const answering = 10 * time.Second

// A version is CRIU's, as far as it matters here; the zero value is none known.
type version struct{ major, minor int }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// twice tells whether a CRIU reads a configuration file that a runtime names two
// times, and so runs each script of it twice (criu/cr-service.c before 4.2).
// /etc/criu/default.conf it reads once.
func (v version) twice() bool {
	return v != (version{}) && (v.major < 4 || v.major == 4 && v.minor < 2)
}

// criuVersion asks the criu that is found on this process's PATH, or else on that
// of services: behind ipc-cr, where that is in front. Below another root none is
// asked, which is for another machine.
func (t *tree) criuVersion(binary string) version {
	if !t.host {
		return version{}
	}
	for _, p := range t.searchPaths() {
		if _, criu := t.along(p.path, t.isIPCCR(binary)); criu != "" {
			return versionOf(t.abs(criu))
		}
	}
	return version{}
}

func versionOf(criu string) (v version) {
	ctx, cancel := context.WithTimeout(context.Background(), answering)
	defer cancel()
	out, err := exec.CommandContext(ctx, criu, "--version").Output()
	if err != nil {
		return version{}
	}
	for line := range bytes.Lines(out) {
		if n, _ := fmt.Sscanf(string(line), "Version: %d.%d", &v.major, &v.minor); n == 2 {
			return v
		}
	}
	return version{}
}
