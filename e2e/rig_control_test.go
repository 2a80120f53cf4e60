package e2e_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"golang.org/x/sys/unix"
)

// A msqid is struct msqid64_ds of include/uapi/asm-generic/msgbuf.h.
type msqid [120]byte

// Offsets in a msqid of what IPC_SET changes.
const (
	atUID    = 4
	atGID    = 8
	atMode   = 20
	atQbytes = 88
)

func (d *msqid) setInt(at, value int) { binary.NativeEndian.PutUint32(d[at:], uint32(value)) }

// changeQueue is IPC_STAT, edit, IPC_SET in the thread's namespace.
func changeQueue(id int, edit func(*msqid)) error {
	var ds msqid
	if _, err := syscallMsg(unix.SYS_MSGCTL, uintptr(id), unix.IPC_STAT, uintptr(unsafe.Pointer(&ds[0])), 0, 0); err != nil {
		return fmt.Errorf("msgctl IPC_STAT: %w", err)
	}
	edit(&ds)
	if _, err := syscallMsg(unix.SYS_MSGCTL, uintptr(id), unix.IPC_SET, uintptr(unsafe.Pointer(&ds[0])), 0, 0); err != nil {
		return fmt.Errorf("msgctl IPC_SET: %w", err)
	}
	return nil
}

// setQbytes may go above msgmnb, which without CAP_SYS_RESOURCE must be raised
// for that moment.
func setQbytes(id, value int) error {
	old, err := sysctl("kernel/msgmnb")
	if err != nil {
		return err
	}
	if err := setSysctl("kernel/msgmnb", max(old, value)); err != nil {
		return err
	}
	if err := changeQueue(id, func(d *msqid) { binary.NativeEndian.PutUint64(d[atQbytes:], uint64(value)) }); err != nil {
		return err
	}
	return setSysctl("kernel/msgmnb", old)
}

func removeQueue(id int) error {
	_, err := syscallMsg(unix.SYS_MSGCTL, uintptr(id), unix.IPC_RMID, 0, 0, 0)
	return err
}

// receive takes the first message out of a queue.
func receive(id int) error {
	var buf [8 + 1<<16]byte
	_, err := syscallMsg(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)-8), 0, unix.IPC_NOWAIT)
	return err
}

// sysctl reads a sysctl, which /proc shows of the thread's namespace.
func sysctl(name string) (int, error) {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func setSysctl(name string, value int) error {
	return os.WriteFile("/proc/sys/"+name, []byte(strconv.Itoa(value)), 0)
}

// limits are the sysctls of the namespace that bound message queues.
func limits(t testing.TB, ns *nsenter.Namespace) (values [3]int) {
	t.Helper()
	inNamespace(t, ns, func() (err error) {
		for i, name := range []string{"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni"} {
			if values[i], err = sysctl(name); err != nil {
				return err
			}
		}
		return nil
	})
	return values
}

// table is /proc/sysvipc/msg of the namespace: every queue with its times and
// last pids.
func table(t testing.TB, ns *nsenter.Namespace) (text string) {
	t.Helper()
	inNamespace(t, ns, func() error {
		content, err := os.ReadFile("/proc/sysvipc/msg")
		text = string(content)
		return err
	})
	return text
}

// queuesPastMsgmax is queues for a namespace whose msgmax is below a message
// that it holds: the kernel refuses to copy it then.
func queuesPastMsgmax(t testing.TB, ns *nsenter.Namespace) []queue {
	t.Helper()
	old := limits(t, ns)[0]
	inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 1<<24) })
	defer inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", old) })
	return queues(t, ns)
}
