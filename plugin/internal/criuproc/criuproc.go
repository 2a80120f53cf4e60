// Package criuproc finds the criu processes of this machine that can still call
// an action script. CRIU reads its configuration once, when it starts, and looks
// the script up at each of its actions: a script that is removed in between fails
// the dump or the restore (criu/action-scripts.c).
//
// A process is one of them if
//
//   - it has what criu needs: CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in the user
//     namespace of the caller (criu/cr-check.c, check_caps). Every criu reads
//     /etc/criu/default.conf, whatever its uid. One in a user namespace of its own
//     is left out: everybody can make one, and could keep an administrator waiting
//     with it;
//   - it runs or maps a file named criu. The name of the process proves nothing:
//     criu changes it (criu/setproctitle.c), and may be started by a loader, which
//     /proc/PID/exe then names. Or it is ipc-cr under the name criu, which is
//     about to execute it, or one that package infront has noted;
//   - the script's path leads to the same file for it. In a container with a root
//     of its own it does not.
//
// Nothing here waits for a process that holds its own memory map locked, or whose
// file systems do not answer.
package criuproc

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// name is the name of criu's file.
const name = "criu"

// again is how often a Watch looks.
const again = 50 * time.Millisecond

// Script is the action script that is asked about.
type Script struct {
	Path   string // as CRIU's configuration names it
	Binary string // the path of ipc-cr, which it stands for
}

// Process is a criu.
type Process struct {
	PID     int
	Command string // its command line, anybody's text, of at most maxCommand bytes
	id      state.Process
}

// Watch is the criu processes that ran at one moment, and what they have forked
// since: `criu service` forks one for each request.
type Watch struct {
	looker *looker
	left   []Process
	unseen []int
}

// Find looks for those that run now. It needs the right to look at them
// (ptrace(2)); those at which the caller may not look are left out.
func Find(script Script) (*Watch, error) {
	looker, err := newLooker(script)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	w := &Watch{looker: looker}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			w.consider(pid, false)
		}
	}
	for _, criu := range beside.Present() { // afterwards: each was noted while it was ipc-cr still
		w.consider(criu.PID, true)
	}
	return w, nil
}

// consider adds a process if it is a criu, or was noted as one.
func (w *Watch) consider(pid int, noted bool) {
	known := func(p Process) bool { return p.PID == pid }
	if pid == os.Getpid() || slices.Contains(w.unseen, pid) || slices.ContainsFunc(w.left, known) {
		return
	}
	id, err := state.Lookup(pid)
	if err != nil || !w.looker.mayDump(pid) {
		return
	}
	seen, inTime := w.looker.look(pid, noted)
	switch {
	case !inTime:
		w.unseen = append(w.unseen, pid)
	case seen.criu:
		w.left = append(w.left, Process{PID: pid, Command: seen.command, id: id})
	}
}

// Unseen are the processes that could not be looked at in time. Whether they are
// criu is unknown, and they are not waited for.
func (w *Watch) Unseen() []int { return w.unseen }

// Left returns those that still run.
func (w *Watch) Left() []Process {
	before := w.left
	w.left = slices.DeleteFunc(slices.Clone(before), func(p Process) bool { return !w.runs(p) })
	for _, p := range before {
		w.follow(p.PID)
	}
	return slices.Clone(w.left)
}

// runs reports whether a process is a criu still. One that executed something
// else is none; one that package infront has noted may be a shell, or a loader,
// before it is criu.
func (w *Watch) runs(p Process) bool {
	if !p.id.Alive() {
		return false
	}
	seen, inTime := w.looker.look(p.PID, false)
	return !inTime || seen.criu || slices.Contains(beside.Present(), p.id)
}

// follow adds the children of a process that are criu, and theirs.
func (w *Watch) follow(pid int) {
	for _, child := range childrenOf(pid) {
		found := len(w.left)
		if w.consider(child, false); len(w.left) > found {
			w.follow(child)
		}
	}
}

// childrenOf reads /proc/PID/task/TID/children, which every kernel has that CRIU
// runs on (CONFIG_PROC_CHILDREN).
func childrenOf(pid int) (children []int) {
	tasks := "/proc/" + strconv.Itoa(pid) + "/task"
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		list, err := os.ReadFile(tasks + "/" + entry.Name() + "/children")
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(list)) {
			if child, err := strconv.Atoi(word); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// Wait returns when none is left, or with the context's cause when that ends.
func (w *Watch) Wait(ctx context.Context) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for len(w.Left()) > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
