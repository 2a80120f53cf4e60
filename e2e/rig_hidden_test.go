package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hiddenEnv makes the test binary run another program in which, and below which,
// the kernel gives namespaces no ids, as kernels before 6.18 do.
const hiddenEnv = "IPC_CR_E2E_HIDDEN"

// withoutIDs is what such a program is started with.
func withoutIDs(t testing.TB) []string {
	t.Helper()
	return []string{"env", hiddenEnv + "=1", taskProgram(t)}
}

func runHidden() int {
	err := execHidden(os.Args[1:])
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// execHidden returns only to say why it could not.
func execHidden(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	if err := hideIDs(); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	os.Unsetenv(hiddenEnv)
	return unix.Exec(path, argv, os.Environ())
}

// hideIDs makes the ioctl NS_GET_ID answer as where it is not known. The offsets
// are those of struct seccomp_data (linux/seccomp.h), whose arguments are 64 bits
// long; a request has its meaning in the lower 32.
func hideIDs() error {
	const number, instruction, argument = 0, 8, 16
	request := uint32(argument + 8)
	if !littleEndian() {
		request += 4
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IOCTL, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: request},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.NS_GET_ID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTTY)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Not by unix.Prctl: the address has to be made where the kernel is called.
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

func littleEndian() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1
}

// The rig's own: the kernel gives an id, and in such a program it does not.
func TestRigHidden(t *testing.T) {
	line := append(withoutIDs(t), "grep", "^Seccomp_filters:", "/proc/self/status")
	if out := command(t, line[0], line[1:]...); !strings.HasSuffix(strings.TrimSpace(out), "1") {
		t.Errorf("the program runs without the filter: %s", out)
	}
}
