package nstest

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// countersSize is a page: it is mapped.
const countersSize = 4096

// Counters are numbers in a file in shared memory. Programs count in it, and a
// test sees whether they run.
type Counters struct {
	Path string
	Slot *[countersSize / 8]atomic.Uint64
}

// NewCounters makes a file of zeros that is gone after the test.
func NewCounters(t testing.TB) Counters {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counters")
	if err := os.WriteFile(path, make([]byte, countersSize), 0o600); err != nil {
		t.Fatal(err)
	}
	return OpenCounters(path)
}

// OpenCounters maps a file that NewCounters made, for a program. It panics where
// that fails.
func OpenCounters(path string) Counters {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	memory, err := unix.Mmap(int(f.Fd()), 0, countersSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return Counters{Path: path, Slot: (*[countersSize / 8]atomic.Uint64)(unsafe.Pointer(&memory[0]))}
}
