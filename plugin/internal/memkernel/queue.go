package memkernel

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

const errInvalid = unix.EINVAL

// The split of an id into index and sequence number (ipc/util.h).
const (
	indexBits = 15
	indexes   = 1 << indexBits
	indexMask = indexes - 1
	maxSeq    = (1 << 31) / indexes
	minCycle  = 64 // RADIX_TREE_MAP_SIZE
)

// queue is a queue with its messages: mtype and payload each.
type queue struct {
	kernel.Queue
	messages []message
}

// find is ipc_obtain_object_check.
func (s *Space) find(id int32) (*queue, error) {
	q := s.queues[int(id)&indexMask]
	if id < 0 || q == nil || q.ID != id {
		return nil, errInvalid
	}
	return q, nil
}

// Create implements kernel.Kernel.
func (t *Task) Create(key int32, mode uint32, creator kernel.Creator) (int32, error) {
	if err := t.enter("Create"); err != nil {
		return 0, err
	}
	defer t.space.mu.Unlock()
	if err := somebody(creator.UID, creator.GID); err != nil {
		return 0, err
	}
	s := t.space
	for _, q := range s.queues {
		if key != 0 && q.Key == key {
			return 0, unix.EEXIST
		}
	}
	if len(s.queues) >= int(s.sysctls[msgmni][0]) {
		return 0, unix.ENOSPC
	}
	id := s.allocate()
	s.queues[int(id)&indexMask] = &queue{Queue: kernel.Queue{
		ID: id, Key: key, Mode: mode & 0o777,
		UID: creator.UID, GID: creator.GID, CUID: creator.UID, CGID: creator.GID,
		QBytes: uint64(s.sysctls[msgmnb][0]), CTime: now(),
	}}
	return id, nil
}

// allocate is ipc_idr_alloc: it uses msg_next_id up, or goes on after the index
// that was given last, and around.
func (s *Space) allocate() int32 {
	if next := s.sysctls[msgNextID][0]; next >= 0 {
		s.sysctls[msgNextID] = []int64{-1}
		seq := int32(next >> indexBits)
		return seq<<indexBits + int32(s.free(int(next)&indexMask, indexes))
	}
	end := min(max(len(s.queues)*3/2, minCycle), indexes)
	index := s.free(s.cursor, end)
	if index == end {
		index = s.free(0, end)
	}
	s.cursor = index + 1
	if index <= s.lastIndex {
		s.seq = (s.seq + 1) % maxSeq
	}
	s.lastIndex = index
	return s.seq<<indexBits + int32(index)
}

// free returns the first free index from one on, end if there is none.
func (s *Space) free(from, end int) int {
	for from < end && s.queues[from] != nil {
		from++
	}
	return min(from, end)
}

// Table implements kernel.Kernel.
func (t *Task) Table() (kernel.Table, error) {
	if err := t.enter("Table"); err != nil {
		return kernel.Table{}, err
	}
	defer t.space.mu.Unlock()
	table := kernel.Table{Queues: len(t.space.queues)}
	for index, q := range t.space.queues {
		table.MaxIndex = max(table.MaxIndex, index)
		table.Messages += uint32(q.QNum)
		table.Bytes += uint32(q.CBytes)
	}
	return table, nil
}

// StatIndex implements kernel.Kernel.
func (t *Task) StatIndex(index int, q *kernel.Queue) error {
	if err := t.enter("StatIndex"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	at := t.space.queues[index]
	if at == nil {
		return errInvalid
	}
	*q = at.Queue
	return nil
}

// Stat implements kernel.Kernel.
func (t *Task) Stat(id int32) (kernel.Queue, error) {
	if err := t.enter("Stat"); err != nil {
		return kernel.Queue{}, err
	}
	defer t.space.mu.Unlock()
	q, err := t.space.find(id)
	if err != nil {
		return kernel.Queue{}, err
	}
	return q.Queue, nil
}

// Set implements kernel.Kernel.
func (t *Task) Set(id int32, attr kernel.Attr) error {
	if err := t.enter("Set"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	q, err := t.space.find(id)
	if err != nil {
		return err
	}
	if attr.QBytes > uint64(t.space.sysctls[msgmnb][0]) {
		return unix.EPERM
	}
	if err := somebody(attr.UID, attr.GID); err != nil {
		return err
	}
	q.UID, q.GID, q.Mode, q.QBytes, q.CTime = attr.UID, attr.GID, attr.Mode&0o777, attr.QBytes, now()
	return nil
}

// Remove implements kernel.Kernel.
func (t *Task) Remove(id int32) error {
	if err := t.enter("Remove"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	if _, err := t.space.find(id); err != nil {
		return err
	}
	delete(t.space.queues, int(id)&indexMask)
	return nil
}

func now() int64 { return time.Now().Unix() }
