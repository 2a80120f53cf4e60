package e2e_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// A filling fills a namespace at random and notes what is in it then.
type filling struct {
	*rand.Rand
	ns     *nsenter.Namespace
	queues []queue // in the order of their making
}

// randomNamespace makes a namespace of 0 to 50 queues, and returns what CRIU has
// to carry. The same seed makes the same.
func randomNamespace(t testing.TB, seed uint64) (*nsenter.Namespace, []queue) {
	t.Helper()
	f := &filling{Rand: rand.New(rand.NewPCG(seed, 0)), ns: nstest.Fresh(t)}
	f.step(t, f.sysctls)
	for range f.count() {
		f.queue(t)
	}
	f.step(t, f.gaps)
	f.step(t, f.nextID)
	return f.ns, f.queues
}

// count is how many queues there are: none and one more often than by chance.
func (f *filling) count() int {
	if n := f.IntN(12); n < 2 {
		return n
	}
	return f.IntN(51)
}

func (f *filling) step(t testing.TB, fn func() error) {
	t.Helper()
	inNamespace(t, f.ns, fn)
}

// sysctls changes some of those that CRIU saves.
func (f *filling) sysctls() error {
	if err := setSysctl("kernel/msgmax", 1<<16); err != nil {
		return err
	}
	for _, change := range []struct {
		name  string
		value int
	}{
		{"kernel/msgmnb", f.IntN(1 << 20)}, {"kernel/msgmni", 100 + f.IntN(30000)}, {"kernel/shm_rmid_forced", 1},
		{"kernel/shmmax", f.IntN(math.MaxInt)}, {"kernel/shmmni", f.IntN(32768)}, {"fs/mqueue/queues_max", f.IntN(1 << 20)},
	} {
		if f.IntN(2) == 0 {
			continue
		}
		if err := setSysctl(change.name, change.value); err != nil {
			return err
		}
	}
	return nil
}

// nextID leaves a wish behind: CRIU saves it.
func (f *filling) nextID() error {
	if f.IntN(4) > 0 {
		return nil
	}
	return setSysctl("kernel/msg_next_id", f.IntN(math.MaxInt32))
}

// queue makes a queue in three steps, because the thread that has become the
// creator cannot go back.
func (f *filling) queue(t testing.TB) {
	t.Helper()
	q := queue{Key: f.key(), Mode: f.mode()}
	q.CUID, q.CGID = f.user(), f.user()
	q.UID, q.GID = q.CUID, q.CGID
	f.step(t, func() error { return f.create(&q) })
	f.step(t, func() error { return f.fill(&q) })
	f.step(t, func() error { return f.change(&q) })
	f.queues = append(f.queues, q)
}

func (f *filling) key() int {
	if f.IntN(3) == 0 {
		return unix.IPC_PRIVATE
	}
	key := int(int32(f.Uint32()))
	if key == 0 || slices.ContainsFunc(f.queues, func(q queue) bool { return q.Key == key }) {
		return f.key()
	}
	return key
}

func (f *filling) mode() int {
	modes := []int{0, 0o600, 0o666, 0o400, 0o111, 0o011, f.IntN(0o1000)}
	return modes[f.IntN(len(modes))]
}

// user is an id: 4294967295 stands for none.
func (f *filling) user() int {
	users := []int{0, 0, 1, 1000, 65534, f.IntN(math.MaxUint32)}
	return users[f.IntN(len(users))]
}

func (f *filling) create(q *queue) (err error) {
	if f.IntN(3) == 0 {
		if err := setSysctl("kernel/msg_next_id", f.IntN(math.MaxInt32)); err != nil {
			return err
		}
	}
	if err := becomeBoth(q.CUID, q.CGID); err != nil {
		return fmt.Errorf("become %d:%d: %w", q.CUID, q.CGID, err)
	}
	q.ID, err = syscallMsg(unix.SYS_MSGGET, uintptr(uint32(q.Key)), uintptr(unix.IPC_CREAT|unix.IPC_EXCL|q.Mode), 0, 0, 0)
	if err != nil {
		return fmt.Errorf("msgget: %w", err)
	}
	return nil
}

// fill sends messages, and takes some or all of them back.
func (f *filling) fill(q *queue) (err error) {
	if q.Qbytes, err = qbytes(q.ID); err != nil {
		return err
	}
	if err := setQbytes(q.ID, 8<<20); err != nil {
		return err
	}
	for range f.messages() {
		m := message{f.mtype(), f.body()}
		if err := send(q.ID, m); err != nil {
			return fmt.Errorf("msgsnd of %d bytes: %w", len(m.Body), err)
		}
		q.Messages = append(q.Messages, m)
	}
	taken := 0
	switch f.IntN(6) {
	case 0:
		taken = len(q.Messages)
	case 1:
		taken = f.IntN(len(q.Messages) + 1)
	}
	for range taken {
		if err := receive(q.ID); err != nil {
			return fmt.Errorf("msgrcv: %w", err)
		}
	}
	if q.Messages = q.Messages[taken:]; len(q.Messages) == 0 {
		q.Messages = nil
	}
	return setQbytes(q.ID, q.Qbytes)
}

func (f *filling) messages() int {
	counts := []int{0, 1, 2, 3, f.IntN(10), 10 + f.IntN(40)}
	return counts[f.IntN(len(counts))]
}

func (f *filling) mtype() int64 {
	types := []int64{1, 2, math.MaxInt64, 1 + f.Int64N(math.MaxInt64)}
	return types[f.IntN(len(types))]
}

// body has the sizes at which padding and the kernel's segments (a page without
// its header) begin and end, and now and then one that only a raised msgmax allows.
func (f *filling) body() string {
	sizes := []int{0, 1, 7, 8, 9, 15, 16, 17, 4047, 4048, 4049, 8191, 8192, f.IntN(8192)}
	size := sizes[f.IntN(len(sizes))]
	if f.IntN(25) == 0 {
		size = []int{8193, 12000, 1<<16 - 1, 1 << 16}[f.IntN(4)]
	}
	var b strings.Builder
	for b.Len() < size {
		b.WriteByte(byte(f.Uint32()))
	}
	return b.String()
}

// change gives the queue away, changes its mode, and moves its qbytes up or
// below what it holds.
func (f *filling) change(q *queue) error {
	if f.IntN(3) == 0 {
		q.UID, q.GID, q.Mode = f.user(), f.user(), f.mode()
		if err := changeQueue(q.ID, func(d *msqid) {
			d.setInt(atUID, q.UID)
			d.setInt(atGID, q.GID)
			d.setInt(atMode, q.Mode)
		}); err != nil {
			return err
		}
	}
	if f.IntN(3) == 0 {
		q.Qbytes = []int{0, 1, 100, 1 << 20, math.MaxInt32}[f.IntN(5)]
		return setQbytes(q.ID, q.Qbytes)
	}
	return nil
}

// gaps removes some of the queues again.
func (f *filling) gaps() error {
	var kept []queue
	for _, q := range f.queues {
		if f.IntN(6) > 0 {
			kept = append(kept, q)
		} else if err := removeQueue(q.ID); err != nil {
			return err
		}
	}
	f.queues = kept
	return nil
}

// byID sorts queues that were made in another order than ipcs(1) has.
func byID(queues []queue) []queue {
	return slices.SortedFunc(slices.Values(queues), func(a, b queue) int { return a.ID - b.ID })
}
