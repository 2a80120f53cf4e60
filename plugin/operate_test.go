package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
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
}

var operateProgram = nstest.Program("plugin.operate", operate)

// operate reads an operation and says the error it gives.
func operate([]string) {
	var op operation
	mustBe(json.NewDecoder(os.Stdin).Decode(&op), nil)
	ns, err := op.open()
	mustBe(err, nil)
	dropCapabilities(op.Without)
	if op.NoCopy {
		forbidCopy()
	}
	if err := op.run(ns); err != nil {
		io.WriteString(os.Stdout, err.Error())
	}
}

func (op *operation) open() (*nsenter.Namespace, error) {
	if op.PID == 0 {
		return nsenter.New()
	}
	return nsenter.OpenPID(op.PID)
}

func (op *operation) run(ns *nsenter.Namespace) (err error) {
	if op.Restore {
		_, err = plugin.Restore(context.Background(), plugin.RestoreOptions{Kinds: kinds, Namespace: ns, Dir: op.Dir, Number: images.Auto})
		return err
	}
	_, err = plugin.Checkpoint(context.Background(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: op.Dir, Number: 1, Freeze: op.Freeze})
	return err
}

// result runs an operation in a process of its own and returns its error.
func (op operation) result(t *testing.T) error {
	t.Helper()
	p := nstest.Start(t, nil, operateProgram)
	if err := json.NewEncoder(p.Stdin).Encode(op); err != nil {
		t.Fatal(err)
	}
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

// dropCapabilities drops them on all threads of the process.
func dropCapabilities(list []uint) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	mustBe(unix.Capget(&header, &data[0]), nil)
	for _, c := range list {
		data[c/32].Effective &^= 1 << (c % 32)
		data[c/32].Permitted &^= 1 << (c % 32)
	}
	onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
}

func onAllThreads(trap, a, b, c uintptr) {
	_, _, errno := syscall.AllThreadsSyscall(trap, a, b, c)
	if errno != 0 {
		panic(errno)
	}
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
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	onAllThreads(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
}

var smallFilesProgram = nstest.Program("plugin.smallfiles", smallFiles)

// smallFiles DIR checkpoints its namespace over and over, allowing files of one
// byte more each time, until that succeeds, and says each error.
func smallFiles(args []string) {
	signal.Ignore(unix.SIGXFSZ)
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
