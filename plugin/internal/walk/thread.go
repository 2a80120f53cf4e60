package walk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// The stages of a walk: enum stage of walk.c.
const (
	stageBegin = 0
	stageEnd   = 3
)

// headLen is what stands in front of each payload in a window: the message's type
// and its length (HEAD in walk.c).
const headLen = 16

// thread walks queues, one after the other. It belongs to one operating system
// thread, in the queues' IPC namespace: the program looks for them in the
// namespace of the thread that runs it.
type thread struct {
	program *Program
	number  uint32
	slot    *walkSlot

	at    int    // what was read of the window
	size  int    // of the message that Next told of
	mtype []byte // its type, in the window; valid until the next run
}

// Release implements kernel.Walk.
func (t *thread) Release() {
	t.program.mu.Lock()
	defer t.program.mu.Unlock()
	t.program.free = append(t.program.free, t.number)
}

// Begin implements kernel.Walk. The error is a Fault, or one of bpf(2).
func (t *thread) Begin(q *kernel.Queue) error {
	s := t.slot
	s.Id, s.Index, s.Qnum, s.Cbytes = q.ID, uint32(q.ID)&t.program.indexes, q.QNum, q.CBytes
	s.PageSize = uint32(os.Getpagesize())
	s.Stage, s.Fault, s.Filled = stageBegin, 0, 0
	return t.run()
}

// Next implements kernel.Walk.
func (t *thread) Next() (size int, err error) {
	if t.left() == 0 {
		if err := t.run(); err != nil {
			return 0, err
		}
	}
	if t.left() < headLen {
		return 0, errWindow
	}
	head := t.slot.Window[t.at:]
	length := binary.NativeEndian.Uint64(head[8:])
	if length > t.slot.Cbytes {
		return 0, errWindow
	}
	t.mtype, t.size = head[:8], int(length)
	t.at += headLen
	return t.size, nil
}

// Read implements kernel.Walk.
func (t *thread) Read(buf []byte) error {
	copy(buf, t.mtype)
	for payload := buf[kernel.HeaderLen : kernel.HeaderLen+t.size]; len(payload) > 0; {
		if t.left() == 0 {
			if err := t.run(); err != nil {
				return err
			}
			if t.left() == 0 {
				return errWindow
			}
		}
		n := copy(payload, t.slot.Window[t.at:t.slot.Filled])
		payload = payload[n:]
		t.at += n
	}
	t.at = min((t.at+7)&^7, int(t.slot.Filled))
	return nil
}

// End implements kernel.Walk.
func (t *thread) End() error {
	if t.left() != 0 {
		return FaultNumber
	}
	if t.slot.Stage == stageEnd {
		return nil
	}
	if err := t.run(); err != nil {
		return err
	}
	if t.left() != 0 || t.slot.Stage != stageEnd {
		return FaultNumber
	}
	return nil
}

// left is how many bytes of the window are not read yet.
func (t *thread) left() int { return int(t.slot.Filled) - t.at }

// errWindow says that the program did not do what it is there for.
var errWindow = errors.New("walk: the program left a window that makes no sense")

// run fills the window. A fault hides what is in it: it is not to be looked at.
func (t *thread) run() error {
	t.at = 0
	if t.slot.Stage == stageEnd {
		t.slot.Filled = 0
		return nil
	}
	if err := testRun(t.program.prog.FD(), &t.number); err != nil {
		return err
	}
	if t.slot.Fault != 0 {
		t.slot.Filled = 0
		return Fault(t.slot.Fault)
	}
	if t.slot.Stage == stageBegin || int(t.slot.Filled) > len(t.slot.Window) {
		return errWindow
	}
	return nil
}

// Fault is why a walk is worth nothing. The numbers are those of enum fault in
// walk.c.
type Fault uint32

// The faults that others may want to tell apart.
const (
	FaultAbsent Fault = 2
	FaultCounts Fault = 3
	FaultNumber Fault = 5
)

var faults = [...]string{
	1: "an address could not be read",
	2: "the queue is not in the kernel's table",
	3: "the queue's counts are others than its statistics said",
	4: "the list's links do not fit together",
	5: "the list has another number of messages than the queue counts",
	6: "the messages have another number of bytes than the queue counts",
	7: "a message has a type below 1",
	8: "the segments of a message do not fit its length",
}

func (f Fault) Error() string {
	if int(f) < len(faults) && faults[f] != "" {
		return faults[f]
	}
	return fmt.Sprintf("fault %d", uint32(f))
}
