package ipcvar

import (
	"fmt"
	"math"

	"github.com/ipc-cr/ipc-cr/images"
)

// sysctl is one row of what CRIU saves of an IPC namespace (criu/ipc_ns.c,
// ipc_sysctl_req).
type sysctl struct {
	name     string
	optional bool // kernels without POSIX message queues have none of these
	save     func(v *images.Vars, value []int64) error
}

var sysctls = []sysctl{
	{name: "kernel.sem", save: saveSem},
	{name: "kernel.msgmax", save: u32(func(v *images.Vars) *uint32 { return &v.MsgMax })},
	{name: "kernel.msgmnb", save: u32(func(v *images.Vars) *uint32 { return &v.MsgMnb })},
	{name: "kernel.msgmni", save: u32(func(v *images.Vars) *uint32 { return &v.MsgMni })},
	{name: "kernel.auto_msgmni", save: u32(func(v *images.Vars) *uint32 { return &v.AutoMsgMni })},
	{name: "kernel.shmmax", save: u64(func(v *images.Vars) *uint64 { return &v.ShmMax })},
	{name: "kernel.shmall", save: u64(func(v *images.Vars) *uint64 { return &v.ShmAll })},
	{name: "kernel.shmmni", save: u32(func(v *images.Vars) *uint32 { return &v.ShmMni })},
	{name: "kernel.shm_rmid_forced", save: u32(func(v *images.Vars) *uint32 { return &v.ShmRmidForced })},
	{name: "fs.mqueue.queues_max", optional: true, save: u32(func(v *images.Vars) *uint32 { return &v.MqQueuesMax })},
	{name: "fs.mqueue.msg_max", optional: true, save: u32(func(v *images.Vars) *uint32 { return &v.MqMsgMax })},
	{name: "fs.mqueue.msgsize_max", optional: true, save: u32(func(v *images.Vars) *uint32 { return &v.MqMsgsizeMax })},
	{name: "fs.mqueue.msg_default", optional: true, save: u32(func(v *images.Vars) *uint32 { return present(&v.MqMsgDefault) })},
	{name: "fs.mqueue.msgsize_default", optional: true, save: u32(func(v *images.Vars) *uint32 { return present(&v.MqMsgsizeDefault) })},
	{name: "kernel.msg_next_id", save: nextID(func(v *images.Vars) **uint32 { return &v.MsgNextID })},
	{name: "kernel.sem_next_id", save: nextID(func(v *images.Vars) **uint32 { return &v.SemNextID })},
	{name: "kernel.shm_next_id", save: nextID(func(v *images.Vars) **uint32 { return &v.ShmNextID })},
}

func present(field **uint32) *uint32 {
	*field = new(uint32)
	return *field
}

func u32(field func(*images.Vars) *uint32) func(*images.Vars, []int64) error {
	return func(v *images.Vars, value []int64) error {
		if len(value) != 1 || value[0] < 0 || value[0] > math.MaxUint32 {
			return fmt.Errorf("%d is not one number of 32 bits", value)
		}
		*field(v) = uint32(value[0])
		return nil
	}
}

func u64(field func(*images.Vars) *uint64) func(*images.Vars, []int64) error {
	return func(v *images.Vars, value []int64) error {
		if len(value) != 1 {
			return fmt.Errorf("%d is not one number", value)
		}
		*field(v) = uint64(value[0]) // an unsigned long
		return nil
	}
}

// nextID leaves -1 out: it means that no id was asked for, and cannot be
// written.
func nextID(field func(*images.Vars) **uint32) func(*images.Vars, []int64) error {
	return func(v *images.Vars, value []int64) error {
		if len(value) == 1 && value[0] == -1 {
			return nil
		}
		return u32(func(v *images.Vars) *uint32 { return present(field(v)) })(v, value)
	}
}

func saveSem(v *images.Vars, value []int64) error {
	const numbers = 4 // SEMMSL, SEMMNS, SEMOPM, SEMMNI
	if len(value) != numbers {
		return fmt.Errorf("%d are not %d numbers", value, numbers)
	}
	for _, number := range value {
		if number < 0 || number > math.MaxUint32 {
			return fmt.Errorf("%d is not a number of 32 bits", number)
		}
		v.Sem = append(v.Sem, uint32(number))
	}
	return nil
}
