package plugin_test

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// message is one message of a queue.
type message struct {
	Type int64
	Text string
}

// queue is all that a restore promises of a queue.
type queue struct {
	ID, Key    int32
	Mode       uint32
	UID, GID   uint32
	CUID, CGID uint32
	QBytes     uint64
	Messages   []message
}

// sysctls are msgmax, msgmnb and msgmni.
type sysctls [3]int64

var limitNames = [3]string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni"}

// defaults are the limits of a fresh namespace.
var defaults = sysctls{8192, 16384, 32000}

// aQueue is a queue of the test's own, of mode 0600, with messages of types 1,
// 2, 3 and so on.
func aQueue(id, key int32, texts ...string) queue {
	me, group := uint32(os.Geteuid()), uint32(os.Getegid())
	q := queue{ID: id, Key: key, Mode: 0o600, UID: me, GID: group, CUID: me, CGID: group, QBytes: 16384}
	for i, text := range texts {
		q.Messages = append(q.Messages, message{int64(i + 1), text})
	}
	return q
}

// within runs fn in a namespace.
func within(t testing.TB, ns *nsenter.Namespace, fn func(kernel.Kernel) error) {
	t.Helper()
	owner, err := ns.Owner()
	if err == nil {
		err = linux.NewSpace(ns, owner).Run(fn)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fill makes queues in a namespace.
func fill(t testing.TB, ns *nsenter.Namespace, queues ...queue) {
	t.Helper()
	within(t, ns, func(k kernel.Kernel) error {
		for _, q := range queues {
			if err := makeQueue(k, q); err != nil {
				return err
			}
		}
		return nil
	})
}

func makeQueue(k kernel.Kernel, q queue) error {
	if err := k.SetNextID(q.ID); err != nil {
		return err
	}
	id, err := k.Create(q.Key, q.Mode, kernel.Creator{UID: q.CUID, GID: q.CGID})
	if err != nil {
		return err
	}
	if id != q.ID {
		return errors.New("another id came out")
	}
	for _, m := range q.Messages {
		if err := k.Send(id, msgbuf(m)); err != nil {
			return err
		}
	}
	return k.Set(id, kernel.Attr{UID: q.UID, GID: q.GID, Mode: q.Mode, QBytes: q.QBytes})
}

func msgbuf(m message) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, uint64(m.Type)), m.Text...)
}

func setLimits(t testing.TB, ns *nsenter.Namespace, l sysctls) {
	t.Helper()
	within(t, ns, func(k kernel.Kernel) error {
		for i, name := range limitNames {
			if err := k.SetSysctl(name, l[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// state is a namespace as it is: every field, times included.
type state struct {
	Limits sysctls
	Stats  []kernel.Queue
	Queues []queue
}

func stateOf(t testing.TB, ns *nsenter.Namespace) (s state) {
	t.Helper()
	within(t, ns, func(k kernel.Kernel) (err error) {
		s, err = readState(k)
		return err
	})
	return s
}

// stateStats is the statistics alone: where messages move, copies fail.
func stateStats(t testing.TB, ns *nsenter.Namespace) (stats []kernel.Queue) {
	t.Helper()
	within(t, ns, func(k kernel.Kernel) error {
		stats = statsIn(k)
		return nil
	})
	return stats
}

func statsIn(k kernel.Kernel) (stats []kernel.Queue) {
	table, err := k.Table()
	mustBe(err, nil)
	for index := range table.MaxIndex + 1 {
		var stat kernel.Queue
		if k.StatIndex(index, &stat) == nil {
			stats = append(stats, stat)
		}
	}
	return stats
}

func readLimits(t testing.TB, ns *nsenter.Namespace) (l sysctls) {
	t.Helper()
	within(t, ns, func(k kernel.Kernel) (err error) {
		l, err = limitsIn(k)
		return err
	})
	return l
}

func limitsIn(k kernel.Kernel) (l sysctls, err error) {
	for i, name := range limitNames {
		value, err := k.Sysctl(name)
		if err != nil {
			return l, err
		}
		l[i] = value[0]
	}
	return l, nil
}

func readState(k kernel.Kernel) (s state, err error) {
	if s.Limits, err = limitsIn(k); err != nil {
		return s, err
	}
	table, err := k.Table()
	if err != nil {
		return s, err
	}
	for index := range table.MaxIndex + 1 {
		var stat kernel.Queue
		err := k.StatIndex(index, &stat)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
			continue
		}
		if err != nil {
			return s, err
		}
		q, err := readQueue(k, &stat)
		if err != nil {
			return s, err
		}
		s.Stats, s.Queues = append(s.Stats, stat), append(s.Queues, q)
	}
	return s, nil
}

func readQueue(k kernel.Kernel, s *kernel.Queue) (queue, error) {
	q := queue{ID: s.ID, Key: s.Key, Mode: s.Mode, UID: s.UID, GID: s.GID, CUID: s.CUID, CGID: s.CGID, QBytes: s.QBytes}
	buf := make([]byte, kernel.HeaderLen+int(s.CBytes))
	for index := range int(s.QNum) {
		n, err := k.Copy(s.ID, buf, index)
		if err != nil {
			return q, err
		}
		q.Messages = append(q.Messages, message{int64(binary.NativeEndian.Uint64(buf)), string(buf[kernel.HeaderLen:][:n])})
	}
	return q, nil
}

// setQBytes gives a queue the qbytes, and what else IPC_SET sets, of q.
func setQBytes(t testing.TB, ns *nsenter.Namespace, q queue) {
	t.Helper()
	within(t, ns, func(k kernel.Kernel) error {
		return k.Set(q.ID, kernel.Attr{UID: q.UID, GID: q.GID, Mode: q.Mode, QBytes: q.QBytes})
	})
}

// removeIfThere removes a queue.
func removeIfThere(id int32) func(kernel.Kernel) error {
	return func(k kernel.Kernel) error {
		if err := k.Remove(id); !errors.Is(err, unix.EINVAL) {
			return err
		}
		return nil
	}
}

// wantQueueIn compares one queue among others.
func wantQueueIn(t testing.TB, q queue) func(kernel.Kernel) error {
	return func(k kernel.Kernel) error {
		stat, err := k.Stat(q.ID)
		if err != nil {
			return err
		}
		got, err := readQueue(k, &stat)
		if diff := cmp.Diff(q, got); diff != "" {
			t.Errorf("queue (-want +got):\n%s", diff)
		}
		return err
	}
}

// wantQueues compares what a namespace holds.
func wantQueues(t testing.TB, ns *nsenter.Namespace, queues ...queue) {
	t.Helper()
	if diff := cmp.Diff(queues, stateOf(t, ns).Queues); diff != "" {
		t.Errorf("queues (-want +got):\n%s", diff)
	}
}

func wantLimits(t testing.TB, ns *nsenter.Namespace, want sysctls) {
	t.Helper()
	if got := readLimits(t, ns); got != want {
		t.Errorf("limits %d, want %d", got, want)
	}
}

// wantSame compares a namespace with what it was, times included.
func wantSame(t testing.TB, ns *nsenter.Namespace, was state) {
	t.Helper()
	if diff := cmp.Diff(was, stateOf(t, ns)); diff != "" {
		t.Errorf("the namespace changed (-was +is):\n%s", diff)
	}
}

// eventually polls until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
