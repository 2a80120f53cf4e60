// Package walk copies the messages of System V message queues by one walk along
// a queue's list, with a BPF program. MSG_COPY of msgrcv(2), which is the only way
// that the kernel itself offers, walks to each message from the head of the list:
// n²/2 steps for n messages.
//
// The program takes no lock. While the tasks that use a queue are stopped a walk is
// exact; on a live queue it may meet memory that was freed and used again. So
// whatever a walk gave is to be thrown away if it ended with a Fault, if the
// queue's statistics or time stamps say that it was used meanwhile, or if a message
// that MSG_COPY gives too is not the same: it may be memory of the kernel's that
// is nobody's business.
//
// It is not for short queues: loading the program takes about 10 ms, and much more
// for the first time on a kernel. And it is not possible everywhere: it needs Linux
// 5.17, a kernel that describes its structures (BTF), and CAP_BPF with
// CAP_PERFMON in the initial user namespace (capabilities(7)).
package walk

//go:generate go tool -modfile=../../../hack/tools/go.mod bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -cflags "-O2 -Wall -Werror" walk walk.c

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// maxThreads is how many threads can walk at once.
const maxThreads = 64

// slotSize is the distance of two slots in the map's memory: the kernel rounds
// the size of an array's elements up to 8 (kernel/bpf/arraymap.c).
const slotSize = (unsafe.Sizeof(walkSlot{}) + 7) &^ 7

// Program is the program in the kernel, with a slot of its map for each thread.
type Program struct {
	prog   *ebpf.Program
	slots  *ebpf.Map
	memory []byte // of the map
	// indexes masks the bits of an id that are the index in the kernel's table.
	indexes uint32

	mu   sync.Mutex
	free []uint32 // slots
}

// Open loads the program. What the kernel's structures look like is kept in the
// state directory for the next time, and taken from there if it can be trusted;
// dir may be nil. The error is an *Unavailable, which says what is missing.
//
// It needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, in the initial user
// namespace (bpf(2)).
func Open(dir *state.Dir) (*Program, error) {
	if err := possible(); err != nil {
		return nil, err
	}
	spec, err := loadWalk()
	if err != nil {
		return nil, explain(err)
	}
	threads := min(runtime.GOMAXPROCS(0), maxThreads)
	spec.Maps[walkMapSlots].MaxEntries = uint32(threads)
	p := &Program{indexes: 1<<linux.IndexBits() - 1}
	for i := range threads {
		p.free = append(p.free, uint32(i))
	}
	if err := p.load(spec, dir); err != nil {
		return nil, errors.Join(explain(err), p.Close())
	}
	return p, nil
}

// load makes the map first: a kernel that refuses is found out before its types
// are looked at.
func (p *Program) load(spec *ebpf.CollectionSpec, dir *state.Dir) (err error) {
	if p.slots, err = ebpf.NewMap(spec.Maps[walkMapSlots]); err != nil {
		return err
	}
	size := os.Getpagesize()
	size = (len(p.free)*int(slotSize) + size - 1) / size * size
	p.memory, err = unix.Mmap(p.slots.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap of the map", err)
	}
	return withTypes(dir, func(t *kernelTypes) error {
		c, err := ebpf.NewCollectionWithOptions(spec.Copy(), ebpf.CollectionOptions{
			MapReplacements: map[string]*ebpf.Map{walkMapSlots: p.slots},
			Programs:        ebpf.ProgramOptions{KernelTypes: t.spec},
		})
		if err != nil {
			return err
		}
		p.prog = c.DetachProgram(walkProgWalk)
		c.Close()
		return nil
	})
}

// Close unloads the program. No Walk may be in use.
func (p *Program) Close() error {
	var err error
	if p.memory != nil {
		err = unix.Munmap(p.memory)
	}
	if p.slots != nil {
		err = errors.Join(err, p.slots.Close())
	}
	if p.prog != nil {
		err = errors.Join(err, p.prog.Close())
	}
	if err != nil {
		return fmt.Errorf("unload the BPF program: %w", err)
	}
	return nil
}

// Walk implements kernel.Walker: it gives a slot of the map to a thread.
func (p *Program) Walk() kernel.Walk {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		return nil
	}
	number := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	slot := (*walkSlot)(unsafe.Pointer(&p.memory[uintptr(number)*slotSize]))
	return &thread{program: p, number: number, slot: slot}
}
