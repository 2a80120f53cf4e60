package kerneltest

import (
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

func sendMsgmax(b *bench) {
	id := b.create(0)
	b.send(id, 1, Pattern(8192, 1))
	b.wantErr("send a byte more", b.k.Send(id, Msgbuf(1, Pattern(8193, 1))), unix.EINVAL)
	b.setSysctl(msgmnb, 1<<20)
	b.setSysctl(msgmax, 20000)
	id = b.create(0)
	b.send(id, 1, Pattern(20000, 1))
	b.wantErr("send a byte more", b.k.Send(id, Msgbuf(1, Pattern(20001, 1))), unix.EINVAL)
}

func sendBytes(b *bench) {
	b.setSysctl(msgmnb, 100)
	id := b.create(0)
	b.send(id, 1, Pattern(60, 1))
	b.wantErr("send 41 bytes to 60 of 100", b.k.Send(id, Msgbuf(1, Pattern(41, 1))), unix.EAGAIN)
	b.send(id, 1, Pattern(40, 1))
	b.send(id, 1, nil)
}

// The limit on the bytes is one on the messages as well.
func sendCount(b *bench) {
	b.setSysctl(msgmnb, 3)
	id := b.create(0)
	for range 3 {
		b.send(id, 1, nil)
	}
	b.wantErr("send a fourth", b.k.Send(id, Msgbuf(1, nil)), unix.EAGAIN)
	b.setSysctl(msgmnb, 0)
	b.wantErr("send where nothing fits", b.k.Send(b.create(0), Msgbuf(1, nil)), unix.EAGAIN)
}

func sendEmpty(b *bench) {
	id := b.create(0)
	b.send(id, math.MaxInt64, nil)
	b.send(id, 2, []byte("x"))
	if q := b.stat(id); q.QNum != 2 || q.CBytes != 1 {
		b.Errorf("%+v, want 2 messages and 1 byte", q)
	}
	b.wantMessage(id, 0, math.MaxInt64, nil)
	b.wantMessage(id, 1, 2, []byte("x"))
}

func sendType(b *bench) {
	id := b.create(0)
	for _, mtype := range []int64{0, -1, math.MinInt64} {
		b.wantErr("send", b.k.Send(id, Msgbuf(mtype, []byte("x"))), unix.EINVAL)
	}
	if q := b.stat(id); q.QNum != 0 || q.LSPID != 0 {
		b.Errorf("%+v, want no message", q)
	}
}

func sendStat(b *bench) {
	id := b.create(0)
	created := b.stat(id)
	before := time.Now().Unix() - 1
	b.send(id, 1, Pattern(10, 1))
	q := b.stat(id)
	if q.STime < before || q.STime > time.Now().Unix() {
		b.Errorf("stime is %d, now is %d", q.STime, time.Now().Unix())
	}
	want := created
	want.QNum, want.CBytes, want.LSPID, want.STime = 1, 10, int32(os.Getpid()), q.STime
	if q != want {
		b.Errorf("after a message the queue is %+v, want %+v", q, want)
	}
}

func copyOrder(b *bench) {
	b.setSysctl(msgmnb, 1<<20)
	b.setSysctl(msgmax, 1<<20)
	id := b.create(0)
	// 4048 bytes are in the kernel's first segment of a message, 8 fewer than a
	// page in each other.
	sizes := []int{0, 1, 7, 8, 9, 4047, 4048, 4049, 8192, 8193, 65536, 3}
	for i, size := range sizes {
		b.send(id, int64(i%3+1), Pattern(size, i))
	}
	for i := range sizes {
		i = len(sizes) - 1 - i
		b.wantMessage(id, i, int64(i%3+1), Pattern(sizes[i], i))
	}
}

func copyChangesNothing(b *bench) {
	id := b.create(0)
	b.send(id, 5, []byte("abc"))
	before, table := b.stat(id), b.table()
	for range 3 {
		b.wantMessage(id, 0, 5, []byte("abc"))
	}
	if after := b.stat(id); after != before {
		b.Errorf("copied from, the queue is %+v, was %+v", after, before)
	}
	if after := b.table(); after != table {
		b.Errorf("copied from, the table is %+v, was %+v", after, table)
	}
}

func copyTooBig(b *bench) {
	id := b.create(0)
	b.send(id, 5, []byte("abc"))
	for size := range 3 {
		_, err := b.k.Copy(id, make([]byte, kernel.HeaderLen+size), 0)
		b.wantErr("copy", err, unix.E2BIG)
	}
	b.wantMessage(id, 0, 5, []byte("abc"))
	larger := make([]byte, kernel.HeaderLen+100)
	if n, err := b.k.Copy(id, larger, 0); n != 3 || err != nil {
		b.Errorf("copy into more than it takes: %d, %v, want 3", n, err)
	}
}

func copyPastEnd(b *bench) {
	id := b.create(0)
	buf := make([]byte, kernel.HeaderLen+100)
	_, err := b.k.Copy(id, buf, 0)
	b.wantErr("copy from an empty queue", err, unix.ENOMSG)
	b.send(id, 5, []byte("abc"))
	_, err = b.k.Copy(id, buf, 1)
	b.wantErr("copy past the end", err, unix.ENOMSG)
}

// A message that was sent before msgmax was lowered.
func copyMsgmax(b *bench) {
	id := b.create(0)
	b.send(id, 1, []byte("short"))
	b.send(id, 1, Pattern(5000, 1))
	b.setSysctl(msgmax, 4999)
	for _, size := range []int{5000, 5001, 1 << 20} {
		_, err := b.k.Copy(id, make([]byte, kernel.HeaderLen+size), 1)
		b.wantErr("copy", err, unix.EINVAL)
	}
	_, err := b.k.Copy(id, make([]byte, kernel.HeaderLen+4999), 1)
	b.wantErr("copy into too little", err, unix.E2BIG)
	b.wantMessage(id, 0, 1, []byte("short"))
	b.setSysctl(msgmax, 5000)
	b.wantMessage(id, 1, 1, Pattern(5000, 1))
}
