package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// operation is what a process of its own does, with less than the test may.
type operation struct {
	Restore bool
	PID     int // of a process in the namespace, 0 for a fresh one
	Dir     string
	Freeze  bool
	Without []uint // capabilities that are dropped when the namespace is open
	NoCopy  bool   // a kernel without MSG_COPY
	NoBPF   bool   // a filter that refuses bpf(2)
	NoWrite bool   // /proc/sys is read-only, as in containers
	Method  plugin.Method

	OnConflict plugin.Policy
	DryRun     bool

	Inside *nsenter.Namespace `json:"-"` // where the process lives, nil for here
}

var (
	operateProgram = nstest.Program("plugin.operate", operate)
	lesserProgram  = nstest.Program("plugin.lesser", operateWithLess)
)

// operate reads an operation and says the error it gives.
func operate([]string) {
	var op operation
	mustBe(json.NewDecoder(os.Stdin).Decode(&op), nil)
	ns, err := op.open()
	mustBe(err, nil)
	if len(op.Without) > 0 || op.NoWrite {
		op.runWithLess(ns)
	}
	op.say(ns)
}

func (op *operation) open() (*nsenter.Namespace, error) {
	if op.PID == 0 {
		return nsenter.New()
	}
	return nsenter.OpenPID(op.PID)
}

func (op *operation) say(ns *nsenter.Namespace) {
	if op.NoCopy {
		forbidCopy()
	}
	if op.NoBPF {
		forbidBPF()
	}
	if err := op.run(ns); err != nil {
		io.WriteString(os.Stdout, err.Error())
	}
}

// runWithLess executes the test binary anew: capabilities are a thread's own,
// and only execve(2) gives all threads of a program what one had.
func (op *operation) runWithLess(ns *nsenter.Namespace) {
	runtime.LockOSThread()
	if op.NoWrite {
		const sysctls = "/proc/sys"
		mustBe(unix.Unshare(unix.CLONE_NEWNS), nil)
		mustBe(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), nil)
		mustBe(unix.Mount(sysctls, sysctls, "", unix.MS_BIND, ""), nil)
		mustBe(unix.Mount("", sysctls, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""), nil)
	}
	for _, c := range op.Without {
		mustBe(unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0), nil)
	}
	const leash = 3 // nstest's, which ends the program with the test
	keepOverExec(leash)
	keepOverExec(ns.Fd())
	text, err := json.Marshal(op)
	mustBe(err, nil)
	args := []string{os.Args[0], string(text), fmt.Sprintf("/proc/self/fd/%d", ns.Fd())}
	panic(unix.Exec("/proc/self/exe", args, append(os.Environ(), "IPC_CR_NSTEST_PROGRAM="+lesserProgram)))
}

// keepOverExec waits until a descriptor is marked close-on-exec, which nstest
// does beside the program, and takes the mark away.
func keepOverExec(fd int) {
	for {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		mustBe(err, nil)
		if flags&unix.FD_CLOEXEC != 0 {
			break
		}
		runtime.Gosched()
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	mustBe(err, nil)
}

// operateWithLess OPERATION PATH is operate behind runWithLess.
func operateWithLess(args []string) {
	var op operation
	mustBe(json.Unmarshal([]byte(args[0]), &op), nil)
	ns, err := nsenter.OpenPath(args[1])
	mustBe(err, nil)
	op.say(ns)
}

func (op *operation) run(ns *nsenter.Namespace) (err error) {
	if op.Restore {
		_, err = plugin.Restore(context.Background(), plugin.RestoreOptions{
			Kinds: kinds, Namespace: ns, Fresh: op.PID == 0, Dir: op.Dir, Number: images.Auto,
			OnConflict: op.OnConflict, DryRun: op.DryRun,
		})
		return err
	}
	_, err = plugin.Checkpoint(context.Background(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: op.Dir, Number: 1, Freeze: op.Freeze, Method: op.Method})
	return err
}

// result runs an operation in a process of its own and returns its error. Of a
// restore that must be the one that its dry run gave before.
func (op operation) result(t *testing.T) error {
	t.Helper()
	if !op.Restore {
		return resultOf(t, op.start(t))
	}
	dry := op
	dry.DryRun = true
	said, err := resultOf(t, dry.start(t)), resultOf(t, op.start(t))
	if number := regexp.MustCompile(`\b\d+ tasks`); number.ReplaceAllString(fmt.Sprint(said), "") != number.ReplaceAllString(fmt.Sprint(err), "") {
		t.Errorf("the dry run says %v, the restore %v", said, err)
	}
	return err
}

func (op operation) start(t *testing.T) *nstest.Process {
	t.Helper()
	p := nstest.Start(t, op.Inside, operateProgram)
	if err := json.NewEncoder(p.Stdin).Encode(op); err != nil {
		t.Fatal(err)
	}
	return p
}

func resultOf(t *testing.T, p *nstest.Process) error {
	t.Helper()
	text, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(text) == 0 {
		return nil
	}
	return errors.New(string(text))
}

// forbidCopy makes msgrcv with MSG_COPY answer as a kernel without
// CONFIG_CHECKPOINT_RESTORE does. The offsets are those of struct seccomp_data
// (linux/seccomp.h).
func forbidCopy() {
	const (
		number, flags = 0, 16 + 4*8
		copyFlag      = 0o40000
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MSGRCV, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: copyFlag, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	forbid(filter)
}

// forbidBPF is what container runtimes do.
func forbidBPF() {
	forbid([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
}

func forbid(filter []unix.SockFilter) {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mustBe(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), nil) // goes to the other threads with the filter
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	mustBe(errnoOrNil(errno), nil)
}

var smallFilesProgram = nstest.Program("plugin.smallfiles", smallFiles)

// smallFiles DIR checkpoints its namespace over and over, allowing files of one
// byte more each time, until that succeeds, and says each error.
func smallFiles(args []string) {
	ns, err := nsenter.Current()
	mustBe(err, nil)
	var was unix.Rlimit
	mustBe(unix.Getrlimit(unix.RLIMIT_FSIZE, &was), nil)
	say := json.NewEncoder(os.Stdout)
	for size := uint64(0); ; size++ {
		mustBe(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: was.Max}), nil)
		err := (&operation{Dir: args[0]}).run(ns)
		if err == nil {
			return
		}
		entries, dirErr := os.ReadDir(args[0])
		mustBe(dirErr, nil)
		if len(entries) > 0 {
			panic(entries[0].Name() + " is left")
		}
		mustBe(say.Encode(err.Error()), nil)
	}
}
