package freeze

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// Programs that stop others.
var (
	freezeProgram    = nstest.Program("freeze.freeze", freezeAndHold)
	nestedProgram    = nstest.Program("freeze.nested", nested)
	traceProgram     = nstest.Program("freeze.trace", trace)
	rudeTraceProgram = nstest.Program("freeze.rudetrace", rudeTrace)
)

// freezeAndHold INODE stops the namespace's tasks, says "held" and a Report,
// and holds them until its stdin ends.
func freezeAndHold(args []string) {
	fmt.Println("starting")
	s, err := All(context.Background(), uint64(argument(args, 0)), Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	report, _ := json.Marshal(s.Report())
	fmt.Println("held", string(report))
	os.Stdin.Read(make([]byte, 1))
	s.Release()
}

// nested INODE is the parent of a freezing program.
func nested(args []string) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "IPC_CR_NSTEST_PROGRAM="+freezeProgram)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	leash, _, err := os.Pipe() // ends with us
	if err != nil {
		panic(err)
	}
	cmd.ExtraFiles = []*os.File{leash}
	if err := cmd.Run(); err != nil {
		panic(err)
	}
}

// trace PID stop|run seizes a process as a debugger would, says so, and lets go
// when its stdin ends.
func trace(args []string) {
	onThread(func() {
		pid := argument(args, 0)
		if err := unix.PtraceSeize(pid); err != nil { // without options: forks go on
			panic(err)
		}
		if args[1] == "stop" {
			if err := interrupt(pid); err != nil {
				panic(err)
			}
			if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
				panic(err)
			}
		}
		fmt.Println("tracing")
		os.Stdin.Read(make([]byte, 1))
	})
}

func rudeTrace(args []string) {
	beRude("self")
	trace(args)
}
