// Package sysv holds the System V IPC system calls that golang.org/x/sys/unix
// lacks, one function a call, acting on the IPC namespace of the calling
// thread. It decides nothing; package linux makes the kernel interface of it.
//
// The message calls are raw system calls, invisible to the Go scheduler: each
// of them is called with IPC_NOWAIT and never sleeps.
package sysv

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags and commands of include/uapi/linux/ipc.h and msg.h.
const (
	IPCCreat   = 0o1000
	IPCExcl    = 0o2000
	IPCNoWait  = 0o4000
	MsgCopy    = 0o40000
	ipcRmid    = 0
	ipcSet     = 1
	ipcStat    = 2
	ipcInfo    = 3
	msgInfo    = 12
	msgStatAny = 13
	semInfo    = 19
	shmInfo    = 14
)

// Get wraps msgget(2).
func Get(key int32, flags uint32) (int32, error) {
	id, _, errno := unix.RawSyscall(unix.SYS_MSGGET, uintptr(key), uintptr(flags), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("msgget", errno)
	}
	return int32(id), nil
}

// Send wraps msgsnd(2) with IPC_NOWAIT. buf is a struct msgbuf: 8 bytes of
// mtype, then the payload.
func Send(id int32, buf []byte) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_MSGSND, uintptr(id),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)-8), IPCNoWait, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("msgsnd", errno)
	}
	return nil
}

// Copy wraps msgrcv(2) with MSG_COPY|IPC_NOWAIT. It returns the length of the
// payload, which stands after the 8 bytes of mtype in buf. It returns the bare
// errno: E2BIG and ENOMSG are everyday answers here.
func Copy(id int32, buf []byte, index int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_MSGRCV, uintptr(id),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)-8), uintptr(index), IPCNoWait|MsgCopy, 0)
	return int(n), errno
}

// Stat wraps msgctl(2) with IPC_STAT.
func Stat(id int32, ds *MsqidDS) error {
	_, err := msgctl(int(id), ipcStat, unsafe.Pointer(ds))
	return err
}

// StatAny wraps msgctl(2) with MSG_STAT_ANY: the queue at an index of the
// kernel's table, readable or not. It returns the queue's id.
func StatAny(index int, ds *MsqidDS) (int32, error) {
	id, err := msgctl(index, msgStatAny, unsafe.Pointer(ds))
	return int32(id), err
}

// Set wraps msgctl(2) with IPC_SET.
func Set(id int32, ds *MsqidDS) error {
	_, err := msgctl(int(id), ipcSet, unsafe.Pointer(ds))
	return err
}

// Remove wraps msgctl(2) with IPC_RMID.
func Remove(id int32) error {
	_, err := msgctl(int(id), ipcRmid, nil)
	return err
}

// Info wraps msgctl(2) with MSG_INFO. It returns the highest index in use.
func Info(info *MsgInfo) (int, error) {
	return msgctl(0, msgInfo, unsafe.Pointer(info))
}

// SemInfo wraps semctl(2) with SEM_INFO.
func SemInfo(info *SemInfoDS) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SEMCTL, 0, 0, semInfo, uintptr(unsafe.Pointer(info)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("semctl", errno)
	}
	return nil
}

// ShmInfo wraps shmctl(2) with SHM_INFO.
func ShmInfo(info *ShmInfoDS) error { return shmctl(shmInfo, unsafe.Pointer(info)) }

// ShmLimits wraps shmctl(2) with IPC_INFO.
func ShmLimits(limits *ShmLimitsDS) error { return shmctl(ipcInfo, unsafe.Pointer(limits)) }

func shmctl(cmd int, arg unsafe.Pointer) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SHMCTL, 0, uintptr(cmd), uintptr(arg))
	if errno != 0 {
		return os.NewSyscallError("shmctl", errno)
	}
	return nil
}

func msgctl(id, cmd int, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_MSGCTL, uintptr(id), uintptr(cmd), uintptr(arg))
	if errno != 0 {
		return 0, os.NewSyscallError("msgctl", errno)
	}
	return int(n), nil
}
