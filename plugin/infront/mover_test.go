package infront

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
)

// moveMessages takes the oldest message of fill's queue and sends it again, for
// ever. The process ends with the test.
func moveMessages() {
	id, _, errno := unix.Syscall(unix.SYS_MSGGET, 0x51, 0, 0)
	if errno != 0 {
		os.Exit(1)
	}
	var buf [64]byte
	for {
		n, _, errno := unix.Syscall6(unix.SYS_MSGRCV, id, uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)-8), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			os.Exit(1)
		}
		for errno = unix.EINTR; errno == unix.EINTR; {
			_, _, errno = unix.Syscall6(unix.SYS_MSGSND, id, uintptr(unsafe.Pointer(&buf)), n, 0, 0, 0)
		}
	}
}

// countMessages reads a whole image.
func countMessages(path string) (count int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	r, err := images.NewReader(path, file, -1)
	if err != nil {
		return 0, err
	}
	for {
		queue, err := r.Queue()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		for range queue.QNum {
			if _, err := r.Message(); err != nil {
				return count, err
			}
			count++
		}
	}
}
