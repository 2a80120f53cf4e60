package nstest

import (
	"os"
	"structs"
	"testing"
	"unsafe"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"golang.org/x/sys/unix"
)

// mqAttr is struct mq_attr of linux/mqueue.h.
type mqAttr struct {
	_       structs.HostLayout
	flags   int64
	maxMsg  int64
	msgSize int64
	curMsgs int64
	_       [4]int64
}

// POSIXQueue makes a POSIX message queue in a namespace, with room for one message of
// 16 bytes: RLIMIT_MSGQUEUE does not allow a user many of the usual size. It is open
// as fd until the end of the test, with a name or without (mq_unlink(3)).
func POSIXQueue(t testing.TB, ns *nsenter.Namespace, name string, unlinked bool) (fd int) {
	t.Helper()
	err := ns.Run(func() (err error) {
		if fd, err = openPOSIX(name); err == nil && unlinked {
			err = unlinkPOSIX(name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// The kernel's names have no slash.
func openPOSIX(name string) (int, error) {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	attr := mqAttr{maxMsg: 1, msgSize: 16}
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(path)),
		unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600, uintptr(unsafe.Pointer(&attr)), 0, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("mq_open", errno)
	}
	return int(fd), nil
}

func unlinkPOSIX(name string) error {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return os.NewSyscallError("mq_unlink", errno)
	}
	return nil
}
