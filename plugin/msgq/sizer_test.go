package msgq

import (
	"math/rand/v2"
	"testing"
)

// simulate plays a queue through a sizer, and returns what that costs the kernel, and
// what it would if the sizes were known.
func simulate(t *testing.T, sizes []int) (cost, least int) {
	t.Helper()
	total := 0
	for _, size := range sizes {
		total += size
	}
	s := newSizer(len(sizes), total)
	for index, size := range sizes {
		price := func(room int) int { return index*nsPerStep + nsPerCall + room*nsPerKiB>>10 }
		for s.next() < size {
			cost += price(s.next())
			if !s.grow() {
				t.Fatalf("message %d of %d bytes, %d left: gives up at %d", index, size, s.left, s.next())
			}
		}
		if s.next() > s.left {
			t.Fatalf("message %d: room for %d bytes, %d are left", index, s.next(), s.left)
		}
		cost += price(s.next())
		least += price(size)
		s.took(size, index)
	}
	if s.left != 0 {
		t.Fatalf("%d bytes are left after the last", s.left)
	}
	return cost, least
}

func shape(n int, size func(i int) int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size(i)
	}
	return sizes
}

// Short queues have little to learn from; what they lose is microseconds.
func TestSizerIsCompetitive(t *testing.T) {
	large := func(at int) func(int) int {
		return func(i int) int { return []int{16, 1 << 20}[b2i(i == at)] }
	}
	for _, c := range []struct {
		name string
		most float64
		size func(i int) int
	}{
		{"equal", 1, func(int) int { return 64 }},
		{"equal and large", 1, func(int) int { return 64 << 10 }},
		{"zeros", 1, func(int) int { return 0 }},
		{"zeros and ones", 2.2, func(i int) int { return i % 2 }},
		{"small and large", 2.2, func(i int) int { return []int{1, 64 << 10}[i%2] }},
		{"large now and then", 2.2, func(i int) int { return []int{64 << 10, 16}[min(i%100, 1)] }},
		{"random", 2.2, chance(func(r *rand.Rand) int { return 1 + r.IntN(8<<10) })},
		{"random magnitude", 3, chance(func(r *rand.Rand) int { return 1 << r.IntN(17) })},
		{"one large first", 2.2, large(0)},
		{"one large early", 2.2, large(3)},
		{"one large late", 2.2, large(900)},
		{"growing", 2.2, func(i int) int { return 1 + i*16 }},
		{"shrinking", 2.2, func(i int) int { return max(1, 60000-i*16) }},
		{"zeros, then large", 2.2, func(i int) int { return []int{0, 8192}[b2i(i > 500)] }},
	} {
		for _, n := range []int{1, 2, 10, 100, 1000, 4000} {
			most := c.most
			if n < 100 && most > 1 {
				most = 3
			}
			cost, least := simulate(t, shape(n, c.size))
			if float64(cost) > most*float64(least) {
				t.Errorf("%d of %s: %d ns, %.2f times the least", n, c.name, cost, float64(cost)/float64(least))
			}
		}
	}
}

func chance(size func(*rand.Rand) int) func(int) int {
	r := rand.New(rand.NewPCG(1, 2))
	return func(int) int { return size(r) }
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Equal sizes are what most queues hold: there nothing is lost at all.
func TestSizerOfEqualSizes(t *testing.T) {
	for _, size := range []int{0, 1, 8, 8192, 1 << 20} {
		cost, least := simulate(t, shape(1000, func(int) int { return size }))
		if cost != least {
			t.Errorf("%d bytes: %d ns, the least is %d", size, cost, least)
		}
	}
}

// What does not fit into all that is left was not there before.
func TestSizerGivesUp(t *testing.T) {
	s := newSizer(10, 100)
	grown := 0
	for s.grow() {
		grown++
	}
	if s.next() != 100 || grown > 10 {
		t.Errorf("gives up at %d after %d times, want 100", s.next(), grown)
	}
	s.took(100, 0)
	if s.next() != 0 || s.grow() {
		t.Errorf("nothing is left, but it gives room for %d", s.next())
	}
}
