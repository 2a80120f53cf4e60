// Command engine is to the tests what a container engine written in Go is: it
// drives CRIU with go-criu, and answers its notifications with ipc-cr's. It stays
// the parent of what it restores, until that ends.
//
//	engine dump DIR PID [leave-running]
//	engine restore DIR
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/checkpoint-restore/go-criu/v7"
	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"

	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "dump":
		pid, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return dump(args[1], pid, len(args) > 3)
	case len(args) == 2 && args[0] == "restore":
		return restore(args[1])
	}
	return fmt.Errorf("not understood: %q", args)
}

func dump(path string, pid int, leaveRunning bool) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	opts := options(dir, "dump.log")
	opts.Pid, opts.LeaveRunning = proto.Int32(int32(pid)), proto.Bool(leaveRunning)
	hook := &criuhook.Notify{Hook: newHook(), ImagesDir: path, PID: pid}
	return criu.MakeCriu().Dump(opts, hook)
}

func restore(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	opts := options(dir, "restore.log")
	opts.RstSibling = proto.Bool(true)
	hook := &tell{Notify: criuhook.Notify{Hook: newHook(), ImagesDir: path}}
	if err := criu.MakeCriu().Restore(opts, hook); err != nil {
		return err
	}
	return hook.await()
}

func options(dir *os.File, log string) *rpc.CriuOpts {
	return &rpc.CriuOpts{
		ImagesDirFd: proto.Int32(int32(dir.Fd())), LogFile: proto.String(log), LogLevel: proto.Int32(4),
	}
}

func newHook() *criuhook.Hook {
	return &criuhook.Hook{Kinds: []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}, Log: os.Stderr}
}

// A tell has a notification of its own to answer beside ipc-cr's.
type tell struct {
	criuhook.Notify
	restored *os.Process
}

// PostRestore keeps who was restored.
func (t *tell) PostRestore(pid int32) (err error) {
	t.restored, err = os.FindProcess(int(pid))
	return err
}

// await says that the restore is done, by the pid of what was restored, and waits
// for its end.
func (t *tell) await() error {
	fmt.Println(t.restored.Pid)
	_, err := t.restored.Wait()
	return err
}
