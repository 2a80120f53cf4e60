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

// twice reports whether a CRIU reads a configuration file that a runtime names two
// times, and so runs each script of it twice (criu/cr-service.c before 4.2).
// /etc/criu/default.conf it reads once.
func (v version) twice() bool {
	return v != (version{}) && (v.major < 4 || v.major == 4 && v.minor < 2)
}

// aborts reports whether a CRIU ends with a BUG where a configuration names an
// action script and a runtime asks for notifications, as runc and crun do: before
// 3.19 it knew either the one or the other (criu/action-scripts.c, add_script and
// add_rpc_notify; mended by its commit 28d00563887d, "action-scripts: allow shell
// scripts in rpc mode").
func (v version) aborts() bool {
	return v != (version{}) && (v.major < 3 || v.major == 3 && v.minor < 19)
}

// reads reports whether a CRIU reads a file of its own for a runtime, or can: libcriu
// before 4.2 has nothing by which crun could name one.
func (v version) reads(runtime string) bool { return runtime != "crun" || !v.twice() }

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
func versionOf(ctx context.Context, criu string, within time.Duration) (v version) {
	ctx, cancel := context.WithTimeout(ctx, within)
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
