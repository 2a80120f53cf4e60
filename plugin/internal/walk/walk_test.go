package walk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func open(t testing.TB) *Program {
	t.Helper()
	nstest.Require(t, "bpf")
	p, err := Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// inside runs a function in a namespace whose limits let large queues be.
func inside(t testing.TB, ns *nsenter.Namespace, do func(k kernel.Kernel) error) {
	t.Helper()
	space := linux.NewSpace(ns, nil)
	err := space.Run(func(k kernel.Kernel) error {
		for _, name := range []string{"kernel.msgmax", "kernel.msgmnb"} {
			if err := k.SetSysctl(name, 1<<30); err != nil {
				return err
			}
		}
		return do(k)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// messageOf is a message of a size, unlike any other of that number.
func messageOf(size, number int) []byte {
	buf := make([]byte, kernel.HeaderLen+size)
	binary.NativeEndian.PutUint64(buf, uint64(number%1000+1))
	for i := range buf[kernel.HeaderLen:] {
		buf[kernel.HeaderLen+i] = byte(number*7 + i + i>>8)
	}
	return buf
}

func queueOf(k kernel.Kernel, key int32, sizes ...int) (kernel.Queue, error) {
	id, err := k.Create(key, 0o600, kernel.Creator{})
	if err != nil {
		return kernel.Queue{}, err
	}
	for i, size := range sizes {
		if err := k.Send(id, messageOf(size, i)); err != nil {
			return kernel.Queue{}, fmt.Errorf("message %d of %d bytes: %w", i, size, err)
		}
	}
	return k.Stat(id)
}

// copied is a queue's messages as a walk gives them.
func copied(w kernel.Walk, q kernel.Queue) (all [][]byte, err error) {
	if err := w.Begin(&q); err != nil {
		return nil, err
	}
	for range q.QNum {
		n, err := w.Next()
		if err != nil {
			return nil, err
		}
		buf := make([]byte, kernel.HeaderLen+n)
		if err := w.Read(buf); err != nil {
			return nil, err
		}
		all = append(all, buf)
	}
	return all, w.End()
}

func wantMessages(w kernel.Walk, q kernel.Queue, sizes []int) error {
	all, err := copied(w, q)
	if err != nil {
		return err
	}
	for i, size := range sizes {
		if !bytes.Equal(all[i], messageOf(size, i)) {
			return fmt.Errorf("queue %d, message %d of %d bytes: other bytes, %d of them", q.ID, i, size, len(all[i])-kernel.HeaderLen)
		}
	}
	return nil
}

// Sizes around every border of a segment, and what makes a window end anywhere.
func TestSizes(t *testing.T) {
	p := open(t)
	page := os.Getpagesize()
	sizes := []int{0, 1, 7, 8, 9, 64 << 10, 1 << 20, 16 << 20, 0, 0, 3}
	for segments := range 40 {
		border := page - 48 + segments*(page-8)
		sizes = append(sizes, border-1, border, border+1)
	}
	inside(t, nstest.Fresh(t), func(k kernel.Kernel) error {
		q, err := queueOf(k, 1, sizes...)
		if err != nil {
			return err
		}
		w := p.Walk()
		defer w.Release()
		for range 2 {
			if err := wantMessages(w, q, sizes); err != nil {
				return err
			}
		}
		return nil
	})
}

// More than one run of the program can do, and than one window holds.
func TestMany(t *testing.T) {
	p := open(t)
	sizes := make([]int, 100_000)
	for i := range sizes {
		sizes[i] = i % 130
	}
	inside(t, nstest.Fresh(t), func(k kernel.Kernel) error {
		q, err := queueOf(k, 1, sizes...)
		if err != nil {
			return err
		}
		w := p.Walk()
		defer w.Release()
		return wantMessages(w, q, sizes)
	})
}

// Random queues, at low and high indexes, with gaps, emptied ones among them.
func TestRandomQueues(t *testing.T) {
	p := open(t)
	for range 40 {
		inside(t, nstest.Fresh(t), func(k kernel.Kernel) error {
			w := p.Walk()
			defer w.Release()
			return randomQueues(k, w)
		})
	}
}

func randomQueues(k kernel.Kernel, w kernel.Walk) error {
	type made struct {
		kernel.Queue
		sizes []int
	}
	var all []made
	for range rand.N(20) + 1 {
		if err := k.SetNextID(int32(rand.N(1 << 31))); err != nil {
			return err
		}
		var sizes []int
		for range rand.N(200) {
			sizes = append(sizes, rand.N(1<<rand.N(14)))
		}
		q, err := queueOf(k, 0, sizes...)
		if err != nil {
			return err
		}
		all = append(all, made{q, sizes})
	}
	for i, q := range all {
		if i%4 == 3 {
			if err := k.Remove(q.ID); err != nil {
				return err
			}
			if _, err := copied(w, q.Queue); !errors.Is(err, FaultAbsent) {
				return fmt.Errorf("queue %d is gone, the walk says %w", q.ID, err)
			}
			continue
		}
		if err := wantMessages(w, q.Queue, q.sizes); err != nil {
			return err
		}
	}
	return nil
}

// A queue that is not what the statistics said gives nothing.
func TestOtherCounts(t *testing.T) {
	p := open(t)
	inside(t, nstest.Fresh(t), func(k kernel.Kernel) error {
		q, err := queueOf(k, 1, 10, 20, 30)
		if err != nil {
			return err
		}
		w := p.Walk()
		defer w.Release()
		more, fewer, seq := q, q, q
		more.QNum, fewer.CBytes, seq.ID = 4, 59, q.ID+1<<15
		for _, wrong := range []kernel.Queue{more, fewer} {
			if err := w.Begin(&wrong); !errors.Is(err, FaultCounts) {
				t.Errorf("%d messages, %d bytes of 3, 60: %v", wrong.QNum, wrong.CBytes, err)
			}
		}
		if err := w.Begin(&seq); !errors.Is(err, FaultAbsent) {
			t.Errorf("another id at that index: %v", err)
		}
		return wantMessages(w, q, []int{10, 20, 30})
	})
}

// A message that comes while the walk is under way is found out when the walk goes on to
// the next window.
func TestChangedMeanwhile(t *testing.T) {
	p := open(t)
	inside(t, nstest.Fresh(t), func(k kernel.Kernel) error {
		sizes := make([]int, 20000) // more than a window
		q, err := queueOf(k, 1, sizes...)
		if err != nil {
			return err
		}
		w := p.Walk()
		defer w.Release()
		if err := w.Begin(&q); err != nil {
			return err
		}
		if err := k.Send(q.ID, messageOf(5, 1)); err != nil {
			return err
		}
		for range q.QNum {
			if _, err := w.Next(); errors.Is(err, FaultNumber) {
				return nil
			} else if err != nil {
				return err
			}
			if err := w.Read(make([]byte, kernel.HeaderLen)); err != nil {
				return err
			}
		}
		return fmt.Errorf("not noticed: %w", w.End())
	})
}

func TestOtherNamespace(t *testing.T) {
	p := open(t)
	var q kernel.Queue
	inside(t, nstest.Fresh(t), func(k kernel.Kernel) (err error) { q, err = queueOf(k, 1, 5); return err })
	inside(t, nstest.Fresh(t), func(kernel.Kernel) error {
		w := p.Walk()
		defer w.Release()
		if err := w.Begin(&q); !errors.Is(err, FaultAbsent) {
			t.Errorf("a queue of another namespace: %v", err)
		}
		return nil
	})
}

func TestUnavailable(t *testing.T) {
	u := &Unavailable{"reason", "remedy", unix.EPERM}
	if u.Error() != "reason: operation not permitted; remedy: remedy" || !errors.Is(u, unix.EPERM) {
		t.Error(u)
	}
}

func BenchmarkWalk(b *testing.B) {
	nstest.Require(b, "bpf")
	p, err := Open(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for _, shape := range [][2]int{{16384, 1}, {100000, 64}, {200000, 64}, {500, 64 << 10}} {
		b.Run(fmt.Sprintf("%dx%d", shape[0], shape[1]), func(b *testing.B) {
			inside(b, nstest.Fresh(b), func(k kernel.Kernel) error {
				sizes := make([]int, shape[0])
				for i := range sizes {
					sizes[i] = shape[1]
				}
				q, err := queueOf(k, 1, sizes...)
				if err != nil {
					return err
				}
				w := p.Walk()
				defer w.Release()
				buf := make([]byte, kernel.HeaderLen+shape[1])
				for b.Loop() {
					if err := w.Begin(&q); err != nil {
						return err
					}
					for range q.QNum {
						if _, err := w.Next(); err != nil {
							return err
						}
						if err := w.Read(buf); err != nil {
							return err
						}
					}
					if err := w.End(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// BenchmarkMemcpy is what 500x65536 of BenchmarkWalk is to be seen beside.
func BenchmarkMemcpy(b *testing.B) {
	from, to := make([]byte, 500*64<<10), make([]byte, 500*64<<10)
	for i := range from {
		from[i] = byte(i)
	}
	for b.Loop() {
		copy(to, from)
	}
}
