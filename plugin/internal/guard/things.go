package guard

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// Things is all that a guard puts back. The order is the order of the changes.
type Things struct {
	Sysctls []Sysctl `json:"sysctls,omitempty"`
}

// Sysctl is one change of a sysctl of the namespace: from Old to Raised. One
// sysctl may be there several times, a change on top of a change, because a
// guard cannot know which of them were made.
type Sysctl struct {
	Name   string `json:"sysctl"`
	Old    int64  `json:"was"`
	Raised int64  `json:"raised_to"`
}

// PutBack puts everything back that still is as ipc-cr left it: what somebody
// else changed meanwhile is not ours to undo. It may be called again. The error
// names each thing that could not be put back, its value and the remedy.
func (t Things) PutBack(space kernel.Space) error {
	if t.empty() {
		return nil
	}
	return space.Run(t.putBackSysctls)
}

func (t Things) putBackSysctls(kn kernel.Kernel) error {
	var errs []error
	seen := map[string]bool{}
	for _, change := range t.Sysctls {
		if !seen[change.Name] {
			seen[change.Name] = true
			errs = append(errs, t.putBackSysctl(kn, change.Name))
		}
	}
	return errors.Join(errs...)
}

func (t Things) putBackSysctl(kn kernel.Kernel, name string) error {
	current, err := ReadSysctl(kn, name)
	if err != nil {
		return fmt.Errorf("put back sysctl %s: %w", name, err)
	}
	old, ours := t.Under(name, current)
	if !ours || old == current {
		return nil
	}
	if err := kn.SetSysctl(name, old); err != nil {
		return fmt.Errorf("put back sysctl %s from %d to %d: %w: set it by hand, as root inside that IPC namespace: sysctl %s=%d",
			name, current, old, err, name, old)
	}
	return nil
}

// Under returns what a sysctl is to become when everything is put back, if
// current is a value that ipc-cr gave it. The newest change that fits counts.
func (t Things) Under(name string, current int64) (old int64, ours bool) {
	for i := len(t.Sysctls) - 1; i >= 0; i-- {
		if c := t.Sysctls[i]; c.Name == name && c.Raised == current {
			return c.Old, true
		}
	}
	return 0, false
}

// ReadSysctl reads a sysctl that holds a single number.
func ReadSysctl(kn kernel.Kernel, name string) (int64, error) {
	values, err := kn.Sysctl(name)
	if err != nil {
		return 0, err
	}
	if len(values) != 1 {
		return 0, fmt.Errorf("sysctl %s holds %d numbers, not one", name, len(values))
	}
	return values[0], nil
}

// reach proves that everything guarded can be reached from here.
func (t Things) reach(space kernel.Space) error {
	return space.Run(func(kn kernel.Kernel) error {
		for _, change := range t.Sysctls {
			if _, err := ReadSysctl(kn, change.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxThings bounds a note: more than any run changes.
const maxThings = 256

// check judges what a file claims. A name becomes a path below /proc/sys, so
// only sysctls of an IPC namespace pass (ipc/ipc_sysctl.c, ipc/mq_sysctl.c).
func (t Things) check() error {
	if len(t.Sysctls) > maxThings {
		return fmt.Errorf("%d sysctls, more than %d", len(t.Sysctls), maxThings)
	}
	for _, change := range t.Sysctls {
		if !ipcSysctl(change.Name) {
			return fmt.Errorf("%q is no sysctl of an IPC namespace", change.Name)
		}
	}
	return nil
}

func ipcSysctl(name string) bool {
	for _, prefix := range []string{"kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."} {
		if rest, found := strings.CutPrefix(name, prefix); found {
			return len(rest) < 64 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz_") == ""
		}
	}
	return false
}
