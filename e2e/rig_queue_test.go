package e2e_test

import (
	"bytes"
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

type message struct {
	Type int64
	Body string
}

// A queue is what must be the same after a restore.
type queue struct {
	ID, Key, Mode        int
	UID, GID, CUID, CGID int // as they are outside of the namespace's user namespace
	Qbytes               int
	Messages             []message
}

// msgCopy is MSG_COPY of include/uapi/linux/msg.h.
const msgCopy = 0o40000

// makeQueue makes a queue of root's in the namespace, sends the messages and
// returns its id. Key 0 makes a private one.
func makeQueue(t testing.TB, ns *nsenter.Namespace, key int, messages ...message) (id int) {
	t.Helper()
	return makeQueueAs(t, ns, 0, key, messages...)
}

// makeQueueAs makes the queue as the user and group of that number, which must
// have a mapping in a user namespace if CRIU is to restore it.
func makeQueueAs(t testing.TB, ns *nsenter.Namespace, user, key int, messages ...message) (id int) {
	t.Helper()
	inNamespace(t, ns, func() (err error) {
		if err := become(user); err != nil {
			return fmt.Errorf("become user %d: %w", user, err)
		}
		id, err = syscallMsg(unix.SYS_MSGGET, uintptr(key), unix.IPC_CREAT|unix.IPC_EXCL|0o600, 0, 0, 0)
		if err != nil {
			return fmt.Errorf("msgget: %w", err)
		}
		for _, m := range messages {
			if err := send(id, m); err != nil {
				return fmt.Errorf("msgsnd: %w", err)
			}
		}
		return nil
	})
	return id
}

// queues returns all queues of the namespace in the order of ipcs(1), and takes
// nothing from them.
func queues(t testing.TB, ns *nsenter.Namespace) []queue {
	t.Helper()
	var found []queue
	inNamespace(t, ns, func() error {
		table, err := os.ReadFile("/proc/sysvipc/msg") // shows the reader's namespace
		if err != nil {
			return err
		}
		for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
			q, err := readQueue(line)
			if err != nil {
				return fmt.Errorf("read queue %q: %w", line, err)
			}
			found = append(found, q)
		}
		return nil
	})
	return found
}

func inNamespace(t testing.TB, ns *nsenter.Namespace, fn func() error) {
	t.Helper()
	if err := ns.Run(fn); err != nil {
		t.Fatal(err)
	}
}

// readQueue reads the queue of one line of /proc/sysvipc/msg (ipc/msg.c,
// sysvipc_msg_proc_show).
func readQueue(line string) (q queue, err error) {
	var cbytes, qnum, lspid, lrpid int
	_, err = fmt.Sscanf(line, "%d %d %o %d %d %d %d %d %d %d %d",
		&q.Key, &q.ID, &q.Mode, &cbytes, &qnum, &lspid, &lrpid, &q.UID, &q.GID, &q.CUID, &q.CGID)
	if err != nil {
		return q, err
	}
	for n := range qnum {
		m, err := copyMessage(q.ID, n, cbytes)
		if err != nil {
			return q, fmt.Errorf("copy message %d: %w", n, err)
		}
		q.Messages = append(q.Messages, m)
	}
	q.Qbytes, err = qbytes(q.ID)
	return q, err
}

// lastUsedBy reports whether a process was the last to send to, or to receive from, a queue
// of the namespace.
func lastUsedBy(t testing.TB, ns *nsenter.Namespace, pid int) (used bool) {
	t.Helper()
	inNamespace(t, ns, func() error {
		table, err := os.ReadFile("/proc/sysvipc/msg")
		for line := range strings.Lines(string(table)) {
			const lspid, lrpid = 5, 6
			field := strings.Fields(line)
			used = used || field[lspid] == strconv.Itoa(pid) || field[lrpid] == strconv.Itoa(pid)
		}
		return err
	})
	return used
}

// become changes the effective ids of this thread alone, so with the bare system
// calls; the thread ends with the function that inNamespace runs.
func become(user int) error { return becomeBoth(user, user) }

func becomeBoth(uid, gid int) error {
	const keep = ^uintptr(0)
	for _, call := range []struct {
		trap uintptr
		id   int
	}{{unix.SYS_SETRESGID, gid}, {unix.SYS_SETRESUID, uid}} {
		if _, _, errno := unix.Syscall(call.trap, keep, uintptr(call.id), keep); errno != 0 {
			return errno
		}
	}
	return nil
}

func send(id int, m message) error {
	buf := binary.NativeEndian.AppendUint64(nil, uint64(m.Type))
	buf = append(buf, m.Body...)
	_, err := syscallMsg(unix.SYS_MSGSND, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(m.Body)), unix.IPC_NOWAIT, 0)
	return err
}

func copyMessage(id, n, room int) (message, error) {
	buf := make([]byte, 8+room)
	size, err := syscallMsg(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), uintptr(room), uintptr(n), msgCopy|unix.IPC_NOWAIT)
	if err != nil {
		return message{}, err
	}
	return message{int64(binary.NativeEndian.Uint64(buf)), string(buf[8 : 8+size])}, nil
}

// qbytes is msg_qbytes of struct msqid64_ds, include/uapi/asm-generic/msgbuf.h:
// after struct ipc64_perm (48 bytes), three times, msg_cbytes and msg_qnum.
func qbytes(id int) (int, error) {
	var ds [120]byte
	_, err := syscallMsg(unix.SYS_MSGCTL, uintptr(id), unix.IPC_STAT, uintptr(unsafe.Pointer(&ds[0])), 0, 0)
	return int(binary.NativeEndian.Uint64(ds[88:])), err
}

//go:uintptrescapes
func syscallMsg(trap, a, b, c, d, e uintptr) (int, error) {
	r, _, errno := unix.Syscall6(trap, a, b, c, d, e, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// pattern is a body of n bytes in which no two places look alike for long.
func pattern(n int) string {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x.", i)
	}
	return b.String()[:n]
}
