package memkernel

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	msgmax    = "kernel.msgmax"
	msgmnb    = "kernel.msgmnb"
	msgmni    = "kernel.msgmni"
	msgNextID = "kernel.msg_next_id"
)

// defaults are the values in a fresh namespace of Linux 6.
func defaults() map[string][]int64 {
	shmall := uint64(math.MaxUint64 - 1<<24) // ULONG_MAX - (1UL << 24)
	return map[string][]int64{
		"kernel.sem": {32000, 1024000000, 500, 32000},
		msgmax:       {8192}, msgmnb: {16384}, msgmni: {32000},
		"kernel.auto_msgmni": {0},
		"kernel.shmmax":      {int64(shmall)}, "kernel.shmall": {int64(shmall)},
		"kernel.shmmni": {4096}, "kernel.shm_rmid_forced": {0},
		"fs.mqueue.queues_max": {256}, "fs.mqueue.msg_max": {10}, "fs.mqueue.msgsize_max": {8192},
		"fs.mqueue.msg_default": {10}, "fs.mqueue.msgsize_default": {8192},
		msgNextID: {-1}, "kernel.sem_next_id": {-1}, "kernel.shm_next_id": {-1},
	}
}

// Sysctl implements kernel.Kernel.
func (t *Task) Sysctl(name string) ([]int64, error) {
	if err := t.enter("Sysctl"); err != nil {
		return nil, err
	}
	defer t.space.mu.Unlock()
	values, ok := t.space.sysctls[name]
	if !ok {
		return nil, fmt.Errorf("open sysctl %s: %w", name, unix.ENOENT)
	}
	return slices.Clone(values), nil
}

// SetSysctl implements kernel.Kernel.
func (t *Task) SetSysctl(name string, value int64) error {
	if err := t.enter("SetSysctl"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	return t.space.write(name, value)
}

// MaySetSysctl implements kernel.Kernel.
func (t *Task) MaySetSysctl(name string) error {
	if err := t.enter("MaySetSysctl"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	if _, ok := t.space.sysctls[name]; !ok {
		return fmt.Errorf("open sysctl %s for writing: %w", name, unix.ENOENT)
	}
	return nil
}

// SetNextID implements kernel.Kernel.
func (t *Task) SetNextID(id int32) error {
	if err := t.enter("SetNextID"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	return t.space.write(msgNextID, int64(id))
}

func (s *Space) write(name string, value int64) error {
	old, ok := s.sysctls[name]
	switch {
	case !ok:
		return fmt.Errorf("open sysctl %s for writing: %w", name, unix.ENOENT)
	case len(old) != 1, value < 0 || value > most(name):
		return fmt.Errorf("write %d to sysctl %s: %w", value, name, unix.EINVAL)
	}
	s.sysctls[name] = []int64{value}
	return nil
}

// most is the greatest value the kernel takes (ipc/ipc_sysctl.c).
func most(name string) int64 {
	switch name {
	case msgmni:
		return indexes
	case "kernel.shmmax", "kernel.shmall":
		return math.MaxInt64
	}
	return math.MaxInt32
}
