package state

import (
	"math"
	"testing"
)

// A name stays what it is from one version to the next: notes that an older ipc-cr
// left are found by it.
func TestNamespaceName(t *testing.T) {
	for _, test := range []struct {
		id, inode uint64
		want      string
	}{
		{7, 4026532177, "7"},
		{math.MaxUint64, 1, "18446744073709551615"},
		{0, 4026532177, "inode-4026532177"},
		{4026532177, 7, "4026532177"}, // an id is never taken for an inode number
	} {
		if got := NamespaceName(test.id, test.inode); got != test.want {
			t.Errorf("id %d, inode %d: %q, want %q", test.id, test.inode, got, test.want)
		}
	}
}
