package nsenter_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

const none = 1<<32 - 1

func TestIDMap(t *testing.T) {
	m := nsenter.IDMap{{0, 100000, 10}, {10, 5, 1}, {1000, 200000, 5}}
	for inside, outside := range map[uint32]uint32{0: 100000, 9: 100009, 10: 5, 1000: 200000, 1004: 200004} {
		if got, ok := m.Out(inside); !ok || got != outside {
			t.Errorf("Out(%d) = %d, %t, want %d", inside, got, ok, outside)
		}
		if got, ok := m.In(outside); !ok || got != inside {
			t.Errorf("In(%d) = %d, %t, want %d", outside, got, ok, inside)
		}
	}
	for _, id := range []uint32{11, 999, 1005, 65534, none} {
		if got, ok := m.Out(id); ok {
			t.Errorf("Out(%d) = %d", id, got)
		}
	}
	for _, id := range []uint32{0, 4, 6, 99999, 100010, 200005, 65534, none} {
		if got, ok := m.In(id); ok {
			t.Errorf("In(%d) = %d", id, got)
		}
	}
}

func TestIDMapEdges(t *testing.T) {
	whole := nsenter.IDMap{{0, 0, none}}
	for _, id := range []uint32{0, 65534, none - 1} {
		if got, ok := whole.In(id); !ok || got != id {
			t.Errorf("whole: In(%d) = %d, %t", id, got, ok)
		}
	}
	if _, ok := whole.In(none); ok {
		t.Error("4294967295 is mapped")
	}
	wraps := nsenter.IDMap{{none - 2, none - 1, 10}}
	if got, ok := wraps.Out(none - 2); !ok || got != none-1 {
		t.Errorf("Out(none-2) = %d, %t", got, ok)
	}
	for _, id := range []uint32{none - 1, none, 0, 1} {
		if got, ok := wraps.Out(id); ok {
			t.Errorf("wraps: Out(%d) = %d", id, got)
		}
	}
	beyond := nsenter.IDMap{{none - 1, 5, 10}, {20, none - 1, 10}}
	if got, ok := beyond.Out(none); ok {
		t.Errorf("beyond: Out(none) = %d", got)
	}
	if got, ok := beyond.In(none); ok {
		t.Errorf("beyond: In(none) = %d", got)
	}
	unseen := nsenter.IDMap{{0, none, 5}}
	if _, ok := unseen.Out(0); ok {
		t.Error("an id that cannot be seen outside is mapped")
	}
	if _, ok := (nsenter.IDMap{}).In(0); ok {
		t.Error("the empty map maps 0")
	}
}

func TestIDMapIdentity(t *testing.T) {
	for _, c := range []struct {
		m    nsenter.IDMap
		want bool
	}{
		{nil, false},
		{nsenter.IDMap{{0, 0, none}}, true},
		{nsenter.IDMap{{0, 0, 1}, {5, 5, 10}}, true},
		{nsenter.IDMap{{0, 0, 1}, {5, 6, 10}}, false},
	} {
		if c.m.Identity() != c.want {
			t.Errorf("%v: want %t", c.m, c.want)
		}
	}
}

func TestParseIDMap(t *testing.T) {
	good := map[string]nsenter.IDMap{
		"":                                   nil,
		"         0          0 4294967295\n": {{0, 0, none}},
		"         0     100000         10\n        10          5          1\n": {{0, 100000, 10}, {10, 5, 1}},
		"         0 4294967295          3\n":                                   {{0, none, 3}},
		"4294967294 4294967294          1\n":                                   {{none - 1, none - 1, 1}},
	}
	for text, want := range good {
		got, err := nsenter.ParseIDMap([]byte(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for text, says := range map[string]string{
		"0 0 1": "has no end", "\n": "has 0 fields, not 3", "0 0\n": "has 2 fields, not 3", "0 0 1 1\n": "has 4 fields, not 3",
		"0 0 x\n": "invalid syntax", "-1 0 1\n": "invalid syntax", "+1 0 1\n": "invalid syntax", "0 0 4294967296\n": "value out of range", "0 0 0\n": "is empty",
		"1 0 4294967295\n": "passes the last id", "0 1 4294967295\n": "passes the last id", "4294967295 0 1\n": "passes the last id",
		"0 0 2\n1 9 2\n": "overlaps another line", "0 0 2\n9 1 2\n": "overlaps another line", "0 0 1\n\n": "has 0 fields, not 3",
	} {
		line := fmt.Sprintf("id map, line %d ", max(1, strings.Count(text, "\n")))
		if got, err := nsenter.ParseIDMap([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), line) || !strings.HasSuffix(err.Error(), says) {
			t.Errorf("%q: %v, %v, want %s and %q", text, got, err, line, says)
		}
	}
}

// What is accepted translates there and back, and never yields 4294967295.
func FuzzParseIDMap(f *testing.F) {
	f.Add("         0          0 4294967295\n", uint32(0))
	f.Add("0 100000 10\n10 5 1\n", uint32(10))
	f.Add("0 4294967295 3\n", uint32(1))
	f.Fuzz(func(t *testing.T, text string, id uint32) {
		m, err := nsenter.ParseIDMap([]byte(text))
		if err != nil {
			return
		}
		if len(m) != strings.Count(text, "\n") {
			t.Fatalf("%d extents of %q", len(m), text)
		}
		if out, ok := m.Out(id); ok {
			if in, ok := m.In(out); !ok || in != id || out == none {
				t.Fatalf("%q: %d goes out as %d and comes back as %d, %t", text, id, out, in, ok)
			}
		}
	})
}
