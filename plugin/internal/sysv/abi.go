//go:build amd64 || arm64 || riscv64 || loong64 || s390x || ppc64le

package sysv

import (
	"structs"
	"unsafe"
)

// IPCPerm is struct ipc64_perm of include/uapi/asm-generic/ipcbuf.h on a 64-bit
// kernel, up to the mode; the sequence number after it is not used here.
type IPCPerm struct {
	_          structs.HostLayout
	Key        int32
	UID, GID   uint32
	CUID, CGID uint32
	Mode       uint32
	_          [24]byte
}

// MsqidDS is struct msqid64_ds of include/uapi/asm-generic/msgbuf.h on a 64-bit
// kernel.
type MsqidDS struct {
	_            structs.HostLayout
	Perm         IPCPerm
	STime        int64
	RTime        int64
	CTime        int64
	CBytes       uint64
	QNum         uint64
	QBytes       uint64
	LSPID, LRPID int32
	_            [2]uint64
}

// MsgInfo is struct msginfo of include/uapi/linux/msg.h as MSG_INFO fills it:
// Pool counts the queues, Map the messages and Tql the bytes; Max, Mnb and Mni
// are the limits. Map and Tql have room for the low 32 bits of what the kernel
// counts (ipc/msg.c, msgctl_info): no sign, and beyond 4 GiB not all of it.
type MsgInfo struct {
	_    structs.HostLayout
	Pool int32
	Map  uint32
	Max  int32
	Mnb  int32
	Mni  int32
	Ssz  int32
	Tql  uint32
	_    uint16
	_    uint16
}

// SemInfoDS is struct seminfo of include/uapi/linux/sem.h as SEM_INFO fills it:
// Usz counts the semaphore sets; Mni, Mns, Msl and Opm are the limits.
type SemInfoDS struct {
	_   structs.HostLayout
	_   int32
	Mni int32
	Mns int32
	_   int32
	Msl int32
	Opm int32
	_   int32
	Usz int32
	_   [2]int32
}

// ShmInfoDS is struct shm_info of include/uapi/linux/shm.h.
type ShmInfoDS struct {
	_       structs.HostLayout
	UsedIDs int32
	_       [5]uint64
}

// ShmLimitsDS is struct shminfo64 of include/uapi/asm-generic/shmbuf.h, which
// IPC_INFO fills.
type ShmLimitsDS struct {
	_   structs.HostLayout
	Max uint64
	_   uint64
	Mni uint64
	_   uint64
	All uint64
	_   [4]uint64
}

// The sizes the kernel copies; a layout that drifts does not compile.
var (
	_ [48]byte  = [unsafe.Sizeof(IPCPerm{})]byte{}
	_ [120]byte = [unsafe.Sizeof(MsqidDS{})]byte{}
	_ [32]byte  = [unsafe.Sizeof(MsgInfo{})]byte{}
	_ [40]byte  = [unsafe.Sizeof(SemInfoDS{})]byte{}
	_ [48]byte  = [unsafe.Sizeof(ShmInfoDS{})]byte{}
	_ [72]byte  = [unsafe.Sizeof(ShmLimitsDS{})]byte{}
)
