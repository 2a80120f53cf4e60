package criuconf

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// answering in time is what a criu must do that is asked for its version.
const answering = 10 * time.Second

// maxAnswer in bytes is as much of the answer as is looked at.
const maxAnswer = 4096

// A version is CRIU's, as far as it matters here; the zero value is none known.
type version struct{ major, minor int }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// twice tells whether a CRIU reads a configuration file that a runtime names two
// times, and so runs each script of it twice (criu/cr-service.c before 4.2).
// /etc/criu/default.conf it reads once.
func (v version) twice() bool {
	return v != (version{}) && (v.major < 4 || v.major == 4 && v.minor < 2)
}

// reads tells whether a CRIU reads a file of its own for a runtime, or can: libcriu
// before 4.2 has nothing by which crun could name one.
func (v version) reads(runtime string) bool { return runtime != "crun" || !v.twice() }

// criuVersion asks the criu that is found on this process's PATH, or else on that
// of services: behind ipc-cr, where that is in front. Below another root none is
// asked, which is for another machine. The error, with no version, is that root
// was to run what others can write (ErrWritable), or that nobody can tell.
func (t *tree) criuVersion(binary string) (version, error) {
	if !t.host {
		return version{}, nil
	}
	for _, p := range t.searchPaths() {
		if _, criu := t.along(p.path, t.isIPCCR(binary)); criu != "" {
			program, err := runnable(t.abs(criu))
			if err != nil {
				return version{}, err
			}
			return versionOf(program, answering), nil
		}
	}
	return version{}, nil
}

// takenForNew says what follows from an unknown version.
func takenForNew(why error) string {
	return fmt.Sprintf("CRIU's version is unknown, and taken for 4.2 or later: %v", why)
}

// runnable is the file that a path leads to, if this process may run it: root must
// not run what others can exchange.
func runnable(path string) (string, error) {
	if os.Geteuid() != 0 {
		return path, nil
	}
	program, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return program, onlyRootWrites("ipc-cr", program)
}

// versionOf is what a criu says of itself. It does not wait longer than that for
// it, and a little for what it started.
func versionOf(criu string, within time.Duration) (v version) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var out head
	cmd := exec.CommandContext(ctx, criu, "--version")
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second // the output is open as long as any process has it
	if err := cmd.Run(); err != nil {
		return version{}
	}
	for line := range bytes.Lines(out.kept) {
		if n, _ := fmt.Sscanf(string(line), "Version: %d.%d", &v.major, &v.minor); n == 2 {
			return v
		}
	}
	return version{}
}

// head keeps the begin of what is written to it.
type head struct{ kept []byte }

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), maxAnswer-len(h.kept))]...)
	return len(p), nil
}
