package kerneltest

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

func (b *bench) wantIDs(wanted ...int32) {
	b.Helper()
	for _, want := range wanted {
		if id := b.create(0); id != want {
			b.Errorf("created queue %d, want %d", id, want)
		}
	}
}

// More than 64, where the kernel's search for a free index has its first end.
func naturalIDs(b *bench) {
	for want := range int32(200) {
		b.wantIDs(want)
	}
}

// An index that was given back is not taken again before the search has come
// round, after 64 of them where few are in use, and then with another sequence
// number.
func idsGoOn(b *bench) {
	b.wantIDs(0)
	for want := int32(1); want < 64; want++ {
		b.wantIDs(want)
		b.remove(want)
	}
	second := int32(1) << b.k.IndexBits()
	b.wantIDs(second|1, second|2)
}

func nextID(b *bench) {
	for _, id := range []int32{7, 4242, 1<<16 | 3, math.MaxInt32, 1<<30 | 5, 0} {
		b.nextID(id)
		if got := b.create(0); got != id {
			b.Errorf("created queue %d, want %d", got, id)
		}
		if q := b.stat(id); q.ID != id {
			b.Errorf("queue %d says it is %d", id, q.ID)
		}
	}
}

func nextIDOnce(b *bench) {
	b.nextID(4242)
	b.wantIDs(4242, 0, 1)
	b.wantSysctl("kernel.msg_next_id", -1)
}

func nextIDBeside(b *bench) {
	b.wantIDs(0)
	b.nextID(5)
	b.wantIDs(5, 1, 2, 3, 4, 6)
}

// The kernel says nothing: only the id that comes out tells.
func nextIDTaken(b *bench) {
	b.nextID(4242)
	b.wantIDs(4242)
	sameSlot := int32(4242 + 1<<b.k.IndexBits())
	for _, want := range []int32{4242, sameSlot} {
		b.nextID(want)
		if id := b.create(0); id == want || id&(1<<b.k.IndexBits()-1) == 4242 {
			b.Errorf("created queue %d in a slot that is taken", id)
		}
	}
}

func nextIDKept(b *bench) {
	b.create(0x77)
	b.nextID(4242)
	_, err := b.k.Create(0x77, 0o600, b.self)
	b.wantErr("create", err, unix.EEXIST)
	b.wantIDs(4242)
}

func keyExists(b *bench) {
	for _, key := range []int32{1, math.MaxInt32, math.MinInt32, -1} {
		id := b.create(key)
		if q := b.stat(id); q.Key != key {
			b.Errorf("queue %d has the key %#x, want %#x", id, q.Key, key)
		}
		_, err := b.k.Create(key, 0o600, b.self)
		b.wantErr("create", err, unix.EEXIST)
		b.remove(id)
		b.create(key)
	}
}

func privateKeys(b *bench) {
	if first, second := b.create(0), b.create(0); first == second {
		b.Errorf("two private queues have the id %d", first)
	}
}

func noSpace(b *bench) {
	b.setSysctl(msgmni, 2)
	b.wantIDs(0, 1)
	_, err := b.k.Create(0, 0o600, b.self)
	b.wantErr("create", err, unix.ENOSPC)
	b.remove(0)
	b.create(0)
}

func newQueue(b *bench) {
	b.setSysctl(msgmnb, 12345)
	before := time.Now().Unix() - 1 // the kernel's clock is a coarse one
	id, err := b.k.Create(0x1234, 0o111, b.self)
	if err != nil {
		b.Fatal(err)
	}
	q := b.stat(id)
	if q.CTime < before || q.CTime > time.Now().Unix() {
		b.Errorf("ctime is %d, now is %d", q.CTime, time.Now().Unix())
	}
	want := kernel.Queue{
		ID: id, Key: 0x1234, Mode: 0o111, QBytes: 12345, CTime: q.CTime,
		UID: b.self.UID, GID: b.self.GID, CUID: b.self.UID, CGID: b.self.GID,
	}
	if q != want {
		b.Errorf("the new queue is %+v, want %+v", q, want)
	}
}

// other returns a creator that is not the caller. It calls
// nstest.Require(b, "ids") where the kernel takes none.
func (b *bench) other() kernel.Creator {
	for _, c := range []kernel.Creator{{UID: 1000, GID: 1001}, {UID: 100001, GID: 100002}} {
		if b.k.MayRestore([]kernel.Creator{c}) == nil {
			return c
		}
	}
	nstest.Require(b, "ids")
	b.Fatal("queues can be made for no other user")
	return kernel.Creator{}
}

func creator(b *bench) {
	other := b.other()
	id, err := b.k.Create(0, 0, other)
	if err != nil {
		b.Fatal(err)
	}
	q := b.stat(id)
	if (kernel.Creator{UID: q.CUID, GID: q.CGID}) != other || (kernel.Creator{UID: q.UID, GID: q.GID}) != other {
		b.Errorf("queue of %+v: %+v", other, q)
	}
	if err := b.k.Set(id, kernel.Attr{UID: b.self.UID, GID: b.self.GID, Mode: 0o644, QBytes: 100}); err != nil {
		b.Fatal(err)
	}
	q = b.stat(id)
	if (kernel.Creator{UID: q.CUID, GID: q.CGID}) != other || (kernel.Creator{UID: q.UID, GID: q.GID}) != b.self {
		b.Errorf("given to %+v, the queue of %+v is %+v", b.self, other, q)
	}
	b.send(id, 1, []byte("x")) // the caller has its own ids and capabilities again
	if q := b.stat(b.create(0)); q.CUID != b.self.UID || q.CGID != b.self.GID {
		b.Errorf("the next queue of %+v is %+v", b.self, q)
	}
}

func creatorNobody(b *bench) {
	for _, c := range []kernel.Creator{
		{UID: math.MaxUint32, GID: b.self.GID}, {UID: b.self.UID, GID: math.MaxUint32},
	} {
		_, err := b.k.Create(0, 0o600, c)
		b.wantErr("create", err, unix.EINVAL)
		b.wantErr("may restore", b.k.MayRestore([]kernel.Creator{b.self, c}), unix.EINVAL)
	}
	if table, err := b.k.Table(); err != nil || table.Queues != 0 {
		b.Errorf("%+v, %v: a queue was made all the same", table, err)
	}
}

func mayRestore(b *bench) {
	if err := b.k.MaySetNextID(); err != nil {
		b.Errorf("may set the next id: %v", err)
	}
	if err := b.k.MayRestore([]kernel.Creator{b.self}); err != nil {
		b.Error(err)
	}
	b.wantIDs(0) // nothing was made or asked for
	b.wantSysctl("kernel.msg_next_id", -1)
}
