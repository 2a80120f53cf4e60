package freeze

import (
	"errors"
	"os"
	"structs"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seizeOptions makes the kernel seize children at birth, before they run, and
// stop a task at the end of execve(2): it has another id then, under which it
// would run on, and bear children, if we had asked it to stop under the old one.
const seizeOptions = unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC

// Codes of SIGCHLD, include/uapi/asm-generic/siginfo.h.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// siginfo is siginfo_t of include/uapi/asm-generic/siginfo.h on 64-bit
// machines, with the fields that waitid(2) fills in.
type siginfo struct {
	_      structs.HostLayout
	signo  int32
	errno  int32
	code   int32
	_      int32
	pid    int32
	uid    uint32
	status int32
	_      [100]byte
}

const (
	_ = uint(unsafe.Sizeof(siginfo{}) - 128)
	_ = uint(128 - unsafe.Sizeof(siginfo{}))
)

// reported reports whether waitid had anything to say.
func (s *siginfo) reported() bool { return s.pid != 0 }

func (s *siginfo) exited() bool {
	return s.reported() && (s.code == cldExited || s.code == cldKilled || s.code == cldDumped)
}

// peek wraps waitid(2) for one tracee and takes nothing: what a stop would
// deliver stays with the task, so if we die while it is about to take a signal
// it takes it. A wait that consumes the stop would make that signal vanish
// (ptrace_stop returns exit_code, which wait_task_stopped clears). ECHILD: not
// a tracee or child of this process.
func peek(tid int) (siginfo, error) {
	var s siginfo
	err := waitid(tid, &s, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL)
	return s, err
}

// waitDead wraps waitid(2) for a tracee that peek saw dead.
func waitDead(tid int) error {
	var s siginfo
	return waitid(tid, &s, unix.WEXITED|unix.WNOHANG|unix.WALL)
}

func waitid(tid int, s *siginfo, options uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_WAITID, unix.P_PID, uintptr(tid), uintptr(unsafe.Pointer(s)), options, 0, 0)
	return failure("waitid", e)
}

// seize wraps PTRACE_SEIZE. It may sleep for as long as the task's process is
// in execve(2). EPERM: another tracer, no right, or a zombie; ESRCH: no task.
func seize(tid int) error {
	for {
		_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, seizeOptions, 0, 0)
		if e == 0 {
			return nil
		}
		if err := os.NewSyscallError("ptrace seize", e); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// mayTrace reports whether we have the right to seize a task: that to read its
// memory is the same (PTRACE_MODE_ATTACH_REALCREDS, see ptrace(2)). Nobody has
// anything at address 0 to be read.
func mayTrace(tid int) bool {
	var b byte
	local := []unix.Iovec{{Base: &b, Len: 1}}
	_, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: 0, Len: 1}}, 0)
	return !errors.Is(err, unix.EPERM)
}

// interrupt wraps PTRACE_INTERRUPT. ESRCH: not our tracee, or dead.
func interrupt(tid int) error { return ptrace("ptrace interrupt", unix.PTRACE_INTERRUPT, tid, 0) }

// detach wraps PTRACE_DETACH; signal is injected if the task stopped to take
// one, and ignored otherwise. ESRCH: not our tracee, dead, or not stopped.
func detach(tid, signal int) error {
	return ptrace("ptrace detach", unix.PTRACE_DETACH, tid, uintptr(signal))
}

// stopInfo wraps PTRACE_GETSIGINFO. ESRCH: not in a ptrace stop.
func stopInfo(tid int) (siginfo, error) {
	var s siginfo
	err := ptracePtr("ptrace getsiginfo", unix.PTRACE_GETSIGINFO, tid, unsafe.Pointer(&s))
	return s, err
}

// newChild wraps PTRACE_GETEVENTMSG at a fork, vfork or clone event: the new
// task's tid.
func newChild(tid int) (int, error) {
	var msg uintptr // unsigned long
	err := ptracePtr("ptrace geteventmsg", unix.PTRACE_GETEVENTMSG, tid, unsafe.Pointer(&msg))
	return int(msg), err
}

func ptrace(name string, request, tid int, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, data, 0, 0)
	return failure(name, e)
}

func ptracePtr(name string, request, tid int, data unsafe.Pointer) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, uintptr(data), 0, 0)
	return failure(name, e)
}

func failure(name string, e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return os.NewSyscallError(name, e)
}

// sameMemory wraps kcmp(2) with KCMP_VM of include/uapi/linux/kcmp.h; the
// kernel has it wherever it has MSG_COPY (CONFIG_CHECKPOINT_RESTORE).
func sameMemory(tid1, tid2 int) (bool, error) {
	const kcmpVM = 1
	r, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(tid1), uintptr(tid2), kcmpVM, 0, 0, 0)
	if e != 0 {
		return false, os.NewSyscallError("kcmp", e)
	}
	return r == 0, nil
}

// nap wraps nanosleep(2). Unlike time.Sleep it keeps the thread, whose wake-up
// would cost more than most tasks take to stop.
func nap(ns int64) {
	t := unix.NsecToTimespec(ns)
	_ = unix.Nanosleep(&t, nil)
}
