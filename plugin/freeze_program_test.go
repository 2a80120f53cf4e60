package plugin_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Programs that are hard to stop. Each moves tokens between the two queues of
// the tokens, one token a type of message, so that no copy may show one twice.
var (
	threadsProgram     = nstest.Program("plugin.threads", manyThreads)
	forkStormProgram   = nstest.Program("plugin.forks", forkStorm)
	threadStormProgram = nstest.Program("plugin.threadstorm", threadStorm)
	singleProgram      = nstest.Program("plugin.single", single)
	headlessProgram    = nstest.Program("plugin.headless", headless)
	vforkProgram       = nstest.Program("plugin.vfork", vforkParent)
	traceProgram       = nstest.Program("plugin.trace", trace)
	rudeProgram        = nstest.Program("plugin.rude", rude)
)

// The headless program needs its first thread for itself.
func init() {
	if os.Getenv("IPC_CR_NSTEST_PROGRAM") == "plugin.headless" {
		runtime.LockOSThread()
	}
}

func onThread(f func()) {
	runtime.LockOSThread()
	f()
}

// move moves the tokens of one type, over and back. It is called in processes
// whose runtime has lost its other threads.
//
//go:nosplit
//go:norace
func move(buf *[16]byte, kind uintptr, at uintptr) {
	moveOne(buf, kind, tokenHere, tokenThere, at)
	moveOne(buf, kind, tokenThere, tokenHere, at)
}

//go:nosplit
//go:norace
func moveOne(buf *[16]byte, kind, from, to, at uintptr) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_MSGRCV, from, at, 8, kind, 0, 0)
		if errno != 0 {
			continue
		}
		for {
			if _, _, errno = unix.RawSyscall6(unix.SYS_MSGSND, to, at, n, 0, 0, 0); errno == 0 {
				return
			}
		}
	}
}

// tokenBuffer does not move, as a buffer on a stack might.
var tokenBuffer [16]byte

var tokenAddress = uintptr(unsafe.Pointer(&tokenBuffer))

// manyThreads THREADS has so many threads; ten of them move tokens.
func manyThreads(args []string) {
	const movers = 10
	n, err := strconv.Atoi(args[0])
	mustBe(err, nil)
	ready := make(chan struct{})
	for i := range n {
		go onThread(func() {
			ready <- struct{}{}
			if i >= movers {
				unix.Pause()
			}
			for buf := make([]byte, 16); ; {
				moveType(i+1, buf)
			}
		})
	}
	for range n {
		<-ready
	}
	fmt.Println("moving")
	select {}
}

// moveType waits in the kernel, and lets the runtime know.
func moveType(kind int, buf []byte) {
	for _, way := range [2][2]uintptr{{tokenHere, tokenThere}, {tokenThere, tokenHere}} {
		n, _, errno := unix.Syscall6(unix.SYS_MSGRCV, way[0], uintptr(unsafe.Pointer(unsafe.SliceData(buf))), 8, uintptr(kind), 0, 0)
		for errno == unix.EINTR {
			n, _, errno = unix.Syscall6(unix.SYS_MSGRCV, way[0], uintptr(unsafe.Pointer(unsafe.SliceData(buf))), 8, uintptr(kind), 0, 0)
		}
		mustBe(errnoOrNil(errno), nil)
		send(int(way[1]), buf[:8+n])
	}
}

func errnoOrNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// forkStorm forks without end; every child moves a token over and back.
func forkStorm([]string) {
	runtime.LockOSThread()
	fmt.Println("moving")
	for {
		forkMover()
	}
}

//go:nosplit
//go:norace
func forkMover() {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return
	}
	if pid == 0 {
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
		move(&tokenBuffer, 1, tokenAddress)
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	unix.RawSyscall6(unix.SYS_WAIT4, pid, 0, unix.WALL, 0, 0, 0)
}

// threadStorm starts threads without end; each moves a token over and back.
func threadStorm([]string) {
	fmt.Println("moving")
	for {
		ended := make(chan struct{})
		go onThread(func() { moveType(1, make([]byte, 16)); close(ended) })
		<-ended
	}
}

// headless ends its first thread; another moves the token.
func headless([]string) {
	go onThread(func() {
		for buf := make([]byte, 16); ; {
			moveType(1, buf)
		}
	})
	fmt.Println("moving")
	unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// single has a thread that moves the token, whatever the others do: it says its id.
func single([]string) {
	onThread(func() {
		fmt.Println(unix.Gettid())
		for {
			move(&tokenBuffer, 1, tokenAddress)
		}
	})
}

// vforkParent waits in vfork for a child that moves the token.
func vforkParent([]string) {
	runtime.LockOSThread()
	fmt.Println("moving")
	vforkMover()
	select {}
}

//go:nosplit
//go:norace
func vforkMover() {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return
	}
	unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	for {
		move(&tokenBuffer, 1, tokenAddress)
	}
}

// trace TID stop|run seizes a task as a debugger would, says so, and lets go
// when its stdin ends.
func trace(args []string) {
	onThread(func() {
		tid, err := strconv.Atoi(args[0])
		mustBe(err, nil)
		mustBe(unix.PtraceSeize(tid), nil)
		if args[1] == "stop" {
			mustBe(unix.PtraceInterrupt(tid), nil)
			_, err := unix.Wait4(tid, nil, unix.WALL, nil)
			mustBe(err, nil)
		}
		fmt.Println("tracing")
		os.Stdin.Read(make([]byte, 1))
	})
}

// rude has a thread whose name clears the screen of a terminal.
func rude([]string) {
	onThread(func() {
		mustBe(os.WriteFile("/proc/thread-self/comm", []byte("\x1b[2J\n"), 0), nil)
		fmt.Println("named")
		os.Stdin.Read(make([]byte, 1))
	})
}
