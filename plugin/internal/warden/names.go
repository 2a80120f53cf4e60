package warden

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The names of the files in the state directory: one note and one socket a CRIU
// process, one claim a namespace or directory whose turn somebody has.
const (
	wardenPrefix = "warden-"
	noteSuffix   = ".json"
	socketSuffix = ".sock"
	turnPrefix   = "turn-"
)

// stem is the common part of the names of a CRIU's note and socket.
func stem(criu state.Process) string {
	return fmt.Sprintf("%s%d-%d-%d", wardenPrefix, criu.PIDNamespace, criu.PID, criu.Start)
}

func noteName(criu state.Process) string   { return stem(criu) + noteSuffix }
func socketName(criu state.Process) string { return stem(criu) + socketSuffix }

func isNoteName(name string) bool {
	return strings.HasPrefix(name, wardenPrefix) && strings.HasSuffix(name, noteSuffix)
}

// socketOf returns whose socket a name is.
func socketOf(name string) (criu state.Process, ok bool) {
	_, err := fmt.Sscanf(name, wardenPrefix+"%d-%d-%d"+socketSuffix, &criu.PIDNamespace, &criu.PID, &criu.Start)
	return criu, err == nil && socketName(criu) == name
}

// namespaceTurn names the claim of a namespace. Before Linux 6.18 there is only
// its inode number, which a later one may have: it then waits without need.
func namespaceTurn(id nsenter.Identity) string {
	return turnPrefix + "ns-" + state.NamespaceName(id.ID, id.Inode) + noteSuffix
}

func directoryTurn(dev, inode uint64) string {
	return fmt.Sprintf("%sdir-%d-%d%s", turnPrefix, dev, inode, noteSuffix)
}

func isTurnName(name string) bool {
	return strings.HasPrefix(name, turnPrefix) && strings.HasSuffix(name, noteSuffix)
}

var bootID = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
})

// otherBoot says that what bears this boot id was written before the last boot,
// so that none of its processes lives.
func otherBoot(id string) bool {
	boot, err := bootID()
	return err == nil && boot != id
}

// dead is certain; a process of another pid namespace never is.
func dead(p state.Process) bool { return !p.Foreign() && !p.Alive() }

// described names a process for messages. It has chosen its command name itself.
func described(p state.Process) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID))
	if err != nil || p.Foreign() {
		return p.String()
	}
	return fmt.Sprintf("%s (%q)", p, strings.TrimSuffix(string(comm), "\n"))
}
