package freeze

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// Programs that keep a namespace busy until they are killed. The first argument
// is the counters' file.
var (
	busyProgram     = nstest.Program("freeze.busy", busy)
	forkProgram     = nstest.Program("freeze.fork", forkStorm)
	threadProgram   = nstest.Program("freeze.thread", threadStorm)
	spawnProgram    = nstest.Program("freeze.spawn", spawnStorm)
	execProgram     = nstest.Program("freeze.exec", startReexec)
	headlessProgram = nstest.Program("freeze.headless", headless)
	mixedProgram    = nstest.Program("freeze.mixed", mixed)
	chainProgram    = nstest.Program("freeze.chain", startChain)
	rudeProgram     = nstest.Program("freeze.rude", rudeForkStorm)
)

func argument(args []string, i int) int {
	n, err := strconv.Atoi(args[i])
	if err != nil {
		panic(err)
	}
	return n
}

func count(slot *atomic.Uint64) {
	for {
		slot.Add(1)
	}
}

// busy FILE BUSY THREADS: so many threads count, so many more count and nap.
func busy(args []string) {
	c := nstest.OpenCounters(args[0])
	for i := range argument(args, 1) {
		go onThread(func() { count(&c.Slot[i]) })
	}
	for range argument(args, 2) {
		go onThread(func() {
			for {
				c.Slot[511].Add(1)
				nap(10e6)
			}
		})
	}
	select {}
}

func onThread(f func()) {
	runtime.LockOSThread()
	f()
}

// forkStorm FILE LOOPS FLAGS: so many processes fork children that count and
// end, and count them; children in another namespace do not count.
// FLAGS are those of clone(2), signal included. The processes and children run no Go code but forkLoop's: their runtime
// has lost its other threads.
func forkStorm(args []string) {
	runtime.LockOSThread()
	c := nstest.OpenCounters(args[0])
	flags := uintptr(argument(args, 2))
	for i := range argument(args, 1) {
		forkLoop(&c.Slot[i], flags)
	}
	select {}
}

func rudeForkStorm(args []string) {
	runtime.LockOSThread()
	beRude("thread-self")
	forkStorm(args)
}

// beRude gives a thread of this process a name that clears the screen of a terminal.
// Its children inherit the name.
func beRude(thread string) {
	if err := os.WriteFile("/proc/"+thread+"/comm", []byte("\x1b[2J\n"), 0); err != nil {
		panic(err)
	}
}

//go:nosplit
//go:norace
func forkLoop(slot *atomic.Uint64, flags uintptr) {
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || e != 0 {
		return
	}
	unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	for {
		pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
		if pid == 0 && e == 0 {
			if flags&unix.CLONE_NEWIPC == 0 {
				atomic.AddUint64((*uint64)(unsafe.Pointer(slot)), 1)
			}
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		unix.RawSyscall6(unix.SYS_WAIT4, pid, 0, unix.WALL, 0, 0, 0)
		atomic.AddUint64((*uint64)(unsafe.Pointer(slot)), 1)
	}
}

// startChain FILE FLAGS: a chain of processes, each of which counts, starts the next
// one and ends. It ends with the test: nobody in it lives long enough to be killed.
func startChain(args []string) {
	runtime.LockOSThread()
	c := nstest.OpenCounters(args[0])
	flags := uintptr(argument(args, 1))
	signal.Ignore(unix.SIGCHLD) // the kernel reaps the orphans
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	chain(&c.Slot[0], &unix.PollFd{Fd: 3}, flags)
	select {}
}

//go:nosplit
//go:norace
func chain(slot *atomic.Uint64, leash *unix.PollFd, flags uintptr) {
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || e != 0 {
		return
	}
	var now unix.Timespec
	for pid == 0 {
		atomic.AddUint64((*uint64)(unsafe.Pointer(slot)), 1)
		gone, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(leash)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if gone != 0 {
			break
		}
		pid, _, _ = unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	}
	unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
}

// threadStorm FILE LOOPS: so many loops start threads that count and end.
func threadStorm(args []string) {
	c := nstest.OpenCounters(args[0])
	for i := range argument(args, 1) {
		go func() {
			for {
				ended := make(chan struct{})
				go onThread(func() { c.Slot[i].Add(1); close(ended) })
				<-ended
			}
		}()
	}
	select {}
}

// spawnStorm FILE LOOPS: so many loops vfork and execute.
func spawnStorm(args []string) {
	c := nstest.OpenCounters(args[0])
	for i := range argument(args, 1) {
		go func() {
			for {
				_ = exec.Command("/bin/true").Run()
				c.Slot[i].Add(1)
			}
		}()
	}
	select {}
}

// reexecEnv holds the counters' file for a test binary that executes itself
// over and over, while it has several threads.
const (
	reexecEnv   = "IPC_CR_FREEZE_REEXEC"
	reexecLeash = 9
)

// startReexec FILE keeps the pipe that ends with the test open: nstest marks
// its own close-on-exec.
func startReexec(args []string) {
	if err := unix.Dup2(3, reexecLeash); err != nil {
		panic(err)
	}
	reexec(args[0])
}

func reexec(path string) {
	go func() {
		unix.Read(reexecLeash, make([]byte, 1))
		os.Exit(3)
	}()
	ready := make(chan struct{})
	for range 6 {
		go onThread(func() {
			ready <- struct{}{}
			for {
				nap(1e9)
			}
		})
	}
	for range 6 {
		<-ready
	}
	nstest.OpenCounters(path).Slot[0].Add(1)
	env := append(os.Environ(), reexecEnv+"="+path)
	panic(unix.Exec("/proc/self/exe", os.Args, env))
}

// The headless program needs its first thread for itself.
func init() {
	if os.Getenv("IPC_CR_NSTEST_PROGRAM") == "freeze.headless" {
		runtime.LockOSThread()
	}
}

// headless FILE: the first thread ends, another goes on.
func headless(args []string) {
	c := nstest.OpenCounters(args[0])
	go onThread(func() { count(&c.Slot[0]) })
	unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// mixed FILE: one thread counts in slot 0, another in slot 1, in an IPC
// namespace of its own.
func mixed(args []string) {
	c := nstest.OpenCounters(args[0])
	go onThread(func() { count(&c.Slot[0]) })
	go onThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
			panic(err)
		}
		count(&c.Slot[1])
	})
	select {}
}

var (
	parentProgram = nstest.Program("freeze.parent", parent)
	vforkProgram  = nstest.Program("freeze.vfork", vforkOnce)
)

// parent FILE says the pid of a busy child, and later how it ended.
func parent(args []string) {
	cmd := exec.Command("/proc/self/exe", args[0], "1", "20")
	cmd.Env = append(os.Environ(), "IPC_CR_NSTEST_PROGRAM="+busyProgram)
	leash, _, err := os.Pipe() // ends with us
	if err != nil {
		panic(err)
	}
	cmd.ExtraFiles = []*os.File{leash}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println(cmd.Process.Pid)
	fmt.Println(cmd.Wait())
	runtime.KeepAlive(leash)
	select {}
}

// vforkOnce FILE PROGRAM FLAGS executes a program, which takes its time, while
// another thread counts.
func vforkOnce(args []string) {
	c := nstest.OpenCounters(args[0])
	go onThread(func() { count(&c.Slot[0]) })
	cmd := exec.Command(args[1])
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(argument(args, 2))}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println("started")
	select {}
}
