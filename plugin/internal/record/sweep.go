package record

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The names of records: one a namespace. With the boot, the id and the inode
// number in it, most of the dead are known without reading them.
const (
	namePrefix = "record-"
	fileSuffix = ".json"
)

// stem is a record's name without suffix.
func stem(id nsenter.Identity) string {
	return fmt.Sprintf("%s%s-%d-%d", namePrefix, bootPart(id.BootID), id.ID, id.Inode)
}

func fileName(id nsenter.Identity) string { return stem(id) + fileSuffix }

// bootPart is the beginning of a boot id, a UUID: enough to tell two apart.
func bootPart(boot string) string {
	const length = 8
	return boot[:min(length, len(boot))]
}

// sweepMost is how many records one Sweep looks at: it must not take longer than
// the restore beside which it runs.
const sweepMost = 64

// Sweep removes records of namespaces that are proven to exist no more, among
// them all of an earlier boot. Where there are very many records it looks at
// some, others the next time. What cannot be removed is left for the next one,
// too.
func Sweep(dir *state.Dir) {
	all, err := dir.Names()
	if err != nil {
		return
	}
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return
	}
	boot := strings.TrimSpace(string(text))
	names := slices.DeleteFunc(all, func(name string) bool {
		return !strings.HasPrefix(name, namePrefix) || !strings.HasSuffix(name, fileSuffix)
	})
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:min(len(names), sweepMost)] {
		if dead(name, boot) {
			_ = dir.Remove(name)
		}
	}
}

// dead reports whether a record is of a namespace that is gone.
func dead(name, boot string) bool {
	id, ok := identityOf(name, boot)
	if !ok {
		return false
	}
	ns, err := nsenter.OpenIdentity(id)
	if err == nil {
		_ = ns.Close()
	}
	return errors.Is(err, nsenter.ErrGone)
}

// identityOf takes a namespace's identity from its record's name. It is not ok
// where the kernel gave no id: nothing proves in this boot that such a namespace
// is gone, and to look for it is to look at all tasks.
func identityOf(name, boot string) (id nsenter.Identity, ok bool) {
	stem := strings.TrimSuffix(name, fileSuffix)
	part, numbers, ok := strings.Cut(strings.TrimPrefix(stem, namePrefix), "-")
	if n, err := fmt.Sscanf(numbers, "%d-%d", &id.ID, &id.Inode); !ok || err != nil || n != 2 {
		return id, false
	}
	if part != bootPart(boot) {
		id.BootID = part // an earlier one
		return id, true
	}
	id.BootID = boot
	return id, id.ID != 0
}
