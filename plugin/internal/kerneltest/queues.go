package kerneltest

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

func (b *bench) table() kernel.Table {
	b.Helper()
	table, err := b.k.Table()
	if err != nil {
		b.Fatal(err)
	}
	return table
}

func set(b *bench) {
	id := b.create(0x99)
	b.send(id, 1, []byte("abc"))
	want := b.stat(id)
	before := time.Now().Unix() - 1
	attr := kernel.Attr{UID: b.self.UID, GID: b.self.GID, Mode: 0o7753, QBytes: 777}
	if err := b.k.Set(id, attr); err != nil {
		b.Fatal(err)
	}
	got := b.stat(id)
	if got.CTime < before {
		b.Errorf("ctime is %d, now is %d", got.CTime, time.Now().Unix())
	}
	want.Mode, want.QBytes, want.CTime = 0o753, 777, got.CTime
	if got != want {
		b.Errorf("set, the queue is %+v, want %+v", got, want)
	}
	for _, attr := range []kernel.Attr{{UID: math.MaxUint32}, {GID: math.MaxUint32}} {
		b.wantErr("set to nobody", b.k.Set(id, attr), unix.EINVAL)
	}
}

func setAboveMsgmnb(b *bench) {
	id := b.create(0)
	attr := kernel.Attr{UID: b.self.UID, GID: b.self.GID, Mode: 0o600, QBytes: 16385}
	b.wantErr("set qbytes", b.k.Set(id, attr), unix.EPERM)
	attr.QBytes = 16384
	if err := b.k.Set(id, attr); err != nil {
		b.Error(err)
	}
}

// The way around: the queue keeps what it was given.
func setRaised(b *bench) {
	id := b.create(0)
	b.setSysctl(msgmnb, math.MaxInt32)
	attr := kernel.Attr{UID: b.self.UID, GID: b.self.GID, Mode: 0o600, QBytes: 100000}
	if err := b.k.Set(id, attr); err != nil {
		b.Fatal(err)
	}
	b.setSysctl(msgmnb, 16384)
	if q := b.stat(id); q.QBytes != 100000 {
		b.Errorf("qbytes is %d, want 100000", q.QBytes)
	}
	for i := range 20 {
		b.send(id, 1, Pattern(4000, i))
	}
}

func setBelowContent(b *bench) {
	id := b.create(0)
	for range 3 {
		b.send(id, 1, []byte("abc"))
	}
	if err := b.k.Set(id, kernel.Attr{UID: b.self.UID, GID: b.self.GID, QBytes: 1}); err != nil {
		b.Fatal(err)
	}
	if q := b.stat(id); q.QNum != 3 || q.CBytes != 9 || q.QBytes != 1 {
		b.Errorf("%+v, want 3 messages, 9 bytes, qbytes 1", q)
	}
	b.wantMessage(id, 2, 1, []byte("abc"))
	b.wantErr("send", b.k.Send(id, Msgbuf(1, nil)), unix.EAGAIN)
}

func removed(b *bench) {
	id := b.create(0x77)
	b.send(id, 1, []byte("abc"))
	b.remove(id)
	b.wantGone(id)
	b.nextID(id + 1<<b.k.IndexBits()) // the same slot, another sequence number
	b.create(0)
	b.wantGone(id)
	b.wantGone(4242)
}

func (b *bench) wantGone(id int32) {
	b.Helper()
	_, err := b.k.Stat(id)
	b.wantErr("stat", err, unix.EINVAL, unix.EIDRM)
	_, err = b.k.Copy(id, make([]byte, kernel.HeaderLen), 0)
	b.wantErr("copy", err, unix.EINVAL, unix.EIDRM)
	b.wantErr("send", b.k.Send(id, Msgbuf(1, nil)), unix.EINVAL, unix.EIDRM)
	b.wantErr("set", b.k.Set(id, kernel.Attr{}), unix.EINVAL, unix.EIDRM)
	b.wantErr("remove", b.k.Remove(id), unix.EINVAL, unix.EIDRM)
}

func table(b *bench) {
	want := func(want kernel.Table) {
		b.Helper()
		if got := b.table(); got != want {
			b.Errorf("the table is %+v, want %+v", got, want)
		}
	}
	want(kernel.Table{})
	b.wantIDs(0)
	want(kernel.Table{Queues: 1})
	b.nextID(500 + 3<<b.k.IndexBits())
	id := b.create(0)
	b.send(id, 1, []byte("abc"))
	b.send(0, 1, []byte("de"))
	want(kernel.Table{Queues: 2, MaxIndex: 500, Messages: 2, Bytes: 5})
	b.remove(id)
	want(kernel.Table{Queues: 1, Messages: 1, Bytes: 2})
}

func statIndex(b *bench) {
	id := int32(500 + 3<<b.k.IndexBits())
	b.nextID(id)
	b.create(0x55)
	b.send(id, 1, []byte("abc"))
	if err := b.k.Set(id, kernel.Attr{UID: b.self.UID, GID: b.self.GID, QBytes: 99}); err != nil {
		b.Fatal(err)
	}
	var q kernel.Queue
	err := b.k.StatIndex(500, &q)
	if want := b.stat(id); err != nil || q != want || q.ID != id {
		b.Errorf("index 500 is %+v, %v, want %+v", q, err, want)
	}
	for _, index := range []int{0, 499, 501} {
		b.wantErr("stat an empty slot", b.k.StatIndex(index, &q), unix.EINVAL)
	}
}

func noOtherKinds(b *bench) {
	b.create(0)
	if counts, err := b.k.OtherKinds(); err != nil || counts != (kernel.Counts{}) {
		b.Errorf("%+v, %v, want none", counts, err)
	}
	if n, err := b.k.POSIXQueues(); err != nil || n != 0 {
		b.Errorf("%d POSIX message queues, %v, want none", n, err)
	}
}

// threads works on one namespace from several threads at once.
func threads(b *bench) {
	shared := b.create(0)
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[int32]int{}
	for n := range 8 {
		group.Go(func() {
			err := b.space.Run(func(k kernel.Kernel) error {
				id, err := k.Create(0, 0o600, b.self)
				if err != nil {
					return err
				}
				mu.Lock()
				seen[id] = n
				mu.Unlock()
				for i := range 50 {
					err = errors.Join(err, k.Send(shared, Msgbuf(int64(n+1), Pattern(3, i))), k.Send(id, Msgbuf(int64(i+1), Pattern(3, n))))
				}
				return err
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	group.Wait()
	if got := b.table(); len(seen) != 8 || got.Queues != 9 || got.Messages != 800 || got.Bytes != 2400 {
		b.Errorf("%d ids, the table is %+v", len(seen), got)
	}
	for id, n := range seen {
		for i := range 50 {
			b.wantMessage(id, i, int64(i+1), Pattern(3, n))
		}
	}
	failure := fmt.Errorf("an error of its own")
	if err := b.space.Run(func(kernel.Kernel) error { return failure }); !errors.Is(err, failure) {
		b.Errorf("%v, want the function's error", err)
	}
}
