// Package lineage tells who started whom: the parents of a process, up to the
// first one, as proc_pid_stat(5) shows them at that moment. A parent that ends
// hands its children to another one, so what is asked later may be answered
// otherwise.
package lineage

import (
	"bytes"
	"os"
	"strconv"
)

// most ends a chain that pids used again have bent into a ring.
const most = 4096

// Of returns a process, its parent, and so on, up to what this pid namespace
// shows. A chain that broke because somebody in it ended is followed again.
func Of(pid int) []int {
	var chain []int
	for range 5 {
		chain = chain[:0]
		at := pid
		for at > 0 && len(chain) < most {
			chain = append(chain, at)
			parent, ok := Parent(at)
			if !ok {
				break
			}
			at = parent
		}
		if at == 0 || len(chain) == 1 {
			return chain
		}
	}
	return chain
}

// Parent returns the parent of a process, 0 for one that has none in this pid
// namespace. Not ok if there is no such process. It is field 4 of
// proc_pid_stat(5); the name before it is the process's own choice, parentheses
// included.
func Parent(pid int) (parent int, ok bool) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return parent, err == nil
}
