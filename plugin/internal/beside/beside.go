// Package beside knows the criu processes that sit in the IPC namespace which
// they dump. Package infront puts them there, and notes each in the state
// directory by the name of the configuration file that it writes for it.
//
// Who stops the tasks of a namespace must spare them: they are in it as well,
// they trace tasks, their own children too (criu/kerndat.c), and use no queues.
package beside

import (
	"fmt"
	"slices"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// prefix and suffix begin and end the name of the configuration file of one criu
// process, whose pid namespace, pid and start time stand between.
const (
	prefix = "criu-"
	suffix = ".conf"
)

// Name is the name of a criu process's configuration file.
func Name(criu state.Process) string {
	return fmt.Sprintf("%s%d-%d-%d%s", prefix, criu.PIDNamespace, criu.PID, criu.Start, suffix)
}

// Named returns whose configuration file a name is.
func Named(name string) (criu state.Process, ok bool) {
	_, err := fmt.Sscanf(name, prefix+"%d-%d-%d"+suffix, &criu.PIDNamespace, &criu.PID, &criu.Start)
	return criu, err == nil && Name(criu) == name
}

// age is how long what was found counts as the present state: a stop of a
// thousand processes asks a thousand times within milliseconds.
const age = 5 * time.Millisecond

// Family is all criu processes beside their namespaces, with what they have
// started. The zero Family is ready. It is for one goroutine at a time.
type Family struct {
	heads  []int
	looked time.Time
}

// Has reports whether a process belongs to it. Nobody does where there is no state
// directory, or it cannot be trusted.
func (f *Family) Has(pid int) bool {
	if time.Since(f.looked) > age {
		f.heads = f.heads[:0]
		for _, criu := range Present() {
			f.heads = append(f.heads, criu.PID)
		}
		f.looked = time.Now()
	}
	if len(f.heads) == 0 {
		return false
	}
	return slices.ContainsFunc(lineage.Of(pid), func(p int) bool { return slices.Contains(f.heads, p) })
}

// Present returns the criu processes that sit beside their namespaces now, or are
// about to. There are none where there is no state directory, or it cannot be
// trusted.
func Present() (found []state.Process) {
	dir, err := state.Existing()
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil {
		return nil
	}
	for _, name := range names {
		if criu, ok := Named(name); ok && !criu.Foreign() && criu.Alive() {
			found = append(found, criu)
		}
	}
	return found
}
