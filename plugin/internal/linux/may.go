package linux

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/creds"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

func (t *thread) MayRestore(creators []kernel.Creator) error {
	// A capability in a parent user namespace counts in the child's as well
	// (user_namespaces(7)), so the thread's own set decides.
	held, err := Capabilities()
	if err != nil {
		return err
	}
	if held&(1<<unix.CAP_CHECKPOINT_RESTORE|1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("write sysctl %s: needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the namespace: %w", nextIDName, unix.EPERM)
	}
	if held&(1<<unix.CAP_IPC_OWNER) == 0 {
		return fmt.Errorf("fill queues before anybody else can use them: needs CAP_IPC_OWNER: %w", unix.EPERM)
	}
	for _, creator := range creators {
		if creator == t.self {
			continue
		}
		if err := t.mayControl(held, creator.UID, creator.UID); err != nil {
			return fmt.Errorf("open queues of uid %d when they are complete: %w", creator.UID, err)
		}
		if err := creds.As(creator.UID, creator.GID, func() error { return nil }); err != nil {
			return fmt.Errorf("create queues as uid %d, gid %d (needs CAP_SETUID, CAP_SETGID, CAP_SETPCAP and ids that are mapped here): %w",
				creator.UID, creator.GID, err)
		}
	}
	return nil
}

func (t *thread) MayRemove(q *kernel.Queue) error {
	held, err := Capabilities()
	if err == nil {
		err = t.mayControl(held, q.UID, q.CUID)
	}
	if err != nil {
		return fmt.Errorf("remove queue %d of uid %d: %w", q.ID, q.UID, err)
	}
	return nil
}

// mayControl: IPC_SET and IPC_RMID are for the owner, the creator and CAP_SYS_ADMIN
// (ipc/util.c, ipcctl_obtain_check).
func (t *thread) mayControl(held uint64, owner, creator uint32) error {
	if owner == t.self.UID || creator == t.self.UID || held&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return nil
	}
	return fmt.Errorf("needs CAP_SYS_ADMIN over the namespace: %w", unix.EPERM)
}

// Capabilities returns the effective set of the calling thread.
func Capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// IndexBits is how many low bits of an id are the index of its slot: 15, or 24 on a
// kernel booted with ipcmni_extend (ipc/util.h).
var IndexBits = sync.OnceValue(func() int {
	line, err := os.ReadFile("/proc/cmdline")
	if err == nil {
		for word := range strings.FieldsSeq(string(line)) {
			if word == "ipcmni_extend" {
				return 24 // IPCMNI_EXTEND_SHIFT
			}
		}
	}
	return 15 // IPCMNI_SHIFT
})

func (t *thread) IndexBits() int { return IndexBits() }
