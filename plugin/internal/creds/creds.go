// Package creds changes the effective ids of one thread for one call.
//
// Two things need it: the kernel takes the creator of a queue from the
// caller's effective ids (ipc/util.c, ipc_addid), and it lets only the root of
// an IPC namespace write that namespace's sysctls (ipc/ipc_sysctl.c,
// ipc_permissions).
package creds

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// keep is the id that setresuid(2) leaves as it is.
const keep = ^uintptr(0)

// unchanged is the id 4294967295, which setresuid takes for "leave unchanged".
const unchanged = ^uint32(0)

// As runs fn with the effective uid and gid of the calling thread changed, and
// changes them back. The thread must be locked, and must never be unlocked: it
// keeps SECBIT_NO_SETUID_FIXUP, without which it would lose its capabilities
// together with its uid (capabilities(7)).
//
// The calls are the raw ones: Go's own change every thread of the process. Real
// and saved ids stay, or the processes of that user could signal this one
// (kill(2)).
//
// It needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP, and ids that are mapped in
// the caller's user namespace (EINVAL).
func As(uid, gid uint32, fn func() error) error {
	if uid == unchanged || gid == unchanged {
		return fmt.Errorf("act as uid %d, gid %d: %w", uid, gid, unix.EINVAL)
	}
	if err := keepCapabilities(); err != nil {
		return err
	}
	oldUID, oldGID := uint32(unix.Geteuid()), uint32(unix.Getegid())
	if err := setEffective(uid, gid); err != nil {
		_ = setEffective(oldUID, oldGID) // the gid may have changed already
		return fmt.Errorf("act as uid %d, gid %d: %w", uid, gid, err)
	}
	err := fn()
	if back := setEffective(oldUID, oldGID); back != nil {
		// A thread with foreign ids must not go on.
		return fmt.Errorf("act as uid %d, gid %d again: %w", oldUID, oldGID, back)
	}
	return err
}

// keepCapabilities sets SECBIT_NO_SETUID_FIXUP on the thread.
func keepCapabilities() error {
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return os.NewSyscallError("prctl(PR_GET_SECUREBITS)", err)
	}
	const noSetuidFixup = 1 << 2 // include/uapi/linux/securebits.h
	if bits&noSetuidFixup != 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(bits|noSetuidFixup), 0, 0, 0); err != nil {
		return fmt.Errorf("keep the capabilities over a change of uid (needs CAP_SETPCAP): %w", err)
	}
	return nil
}

func setEffective(uid, gid uint32) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(gid), keep); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}
