package main

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of msgop(2) and msgget(2), as any program makes them.

const (
	ipcCreat  = 0o1000
	ipcNoWait = 0o4000
)

// msgbuf is struct msgbuf: the type, then the text.
type msgbuf [8 + 256]byte

func msgget(key, mode int) (int, error) {
	flags := uintptr(mode)
	if mode != 0 {
		flags |= ipcCreat
	}
	id, _, errno := unix.Syscall(unix.SYS_MSGGET, uintptr(key), flags, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("msgget", errno)
	}
	return int(id), nil
}

func msgsnd(id int, mtype int64, text string) error {
	var m msgbuf
	binary.NativeEndian.PutUint64(m[:], uint64(mtype))
	n := copy(m[8:], text)
	_, _, errno := unix.Syscall6(unix.SYS_MSGSND, uintptr(id), uintptr(unsafe.Pointer(&m)), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("msgsnd", errno)
	}
	return nil
}

func msgrcv(id int) (mtype int64, text string, err error) {
	var m msgbuf
	n, _, errno := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&m)), uintptr(len(m)-8), 0, ipcNoWait, 0)
	if errno != 0 {
		return 0, "", os.NewSyscallError("msgrcv", errno)
	}
	return int64(binary.NativeEndian.Uint64(m[:])), string(m[8 : 8+n]), nil
}
