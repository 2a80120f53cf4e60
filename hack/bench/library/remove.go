package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of msgctl(2) that x/sys/unix has no names for (include/uapi/linux/msg.h).
const (
	msgStat = 11
	msgInfo = 12
)

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL (include/uapi/linux/membarrier.h).
const membarrierGlobal = 1

// msgctl drops what the kernel tells of a queue; the buffer has room for both
// struct msqid64_ds and struct msginfo.
func msgctl(id, command int) (int, error) {
	var buffer [32]uint64
	n, _, errno := unix.Syscall(unix.SYS_MSGCTL, uintptr(id), uintptr(command), uintptr(unsafe.Pointer(&buffer)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// removeQueues removes every queue of the calling thread's namespace, as the C
// programs do (queues_remove in reference/c/bench.c).
func removeQueues() error {
	last, err := msgctl(0, msgInfo)
	if err != nil {
		return fmt.Errorf("msgctl MSG_INFO: %w", err)
	}
	for index := 0; index <= last; index++ {
		id, err := msgctl(index, msgStat)
		if errors.Is(err, unix.EINVAL) {
			continue // no queue at that index
		}
		if err == nil {
			_, err = msgctl(id, unix.IPC_RMID)
		}
		if err != nil {
			return fmt.Errorf("remove the queue at index %d: %w", index, err)
		}
	}
	// The kernel frees the queues themselves after an RCU grace period: let it pass
	// here. A kernel that refuses only makes the times less quiet.
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	return nil
}
