package warden

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// family says who is never stopped for a CRIU run, by the real chain of parents
// at that moment: a parent that ends hands its children to another one.
type family struct {
	criu, init int
	above      map[int]bool // CRIU's ancestors and CRIU
	looked     time.Time    // when above was
}

// chainAge is how long the chain above CRIU counts as the present one: a stop of
// a thousand processes asks a thousand times within milliseconds.
const chainAge = 5 * time.Millisecond

// exempt is for one goroutine at a time.
func (f *family) exempt(pid int) bool {
	if f.above == nil || time.Since(f.looked) > chainAge {
		f.above, f.looked = map[int]bool{}, time.Now()
		for _, ancestor := range lineage(f.criu) {
			f.above[ancestor] = true
		}
	}
	if f.above[pid] {
		return true
	}
	for _, ancestor := range lineage(pid) {
		if ancestor == f.criu || f.init != 0 && ancestor == f.init {
			return true
		}
	}
	return false
}

// maxChain ends a chain that pids used again have bent into a ring.
const maxChain = 4096

// lineage is a process, its parent, and so on, up to what this pid namespace
// shows. A chain that broke because somebody in it ended is followed again.
func lineage(pid int) []int {
	var chain []int
	for range 5 {
		chain = chain[:0]
		at := pid
		for at > 0 && len(chain) < maxChain {
			chain = append(chain, at)
			parent, ok := parentOf(at)
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

// parentOf reads field 4 of proc_pid_stat(5). The command name before it is the
// process's own choice, parentheses included.
func parentOf(pid int) (parent int, ok bool) {
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
