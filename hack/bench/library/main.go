// Command library is ipc-cr's contender in the benchmark: it does one operation
// several times in a row, through the library as any program would, and prints
// the nanoseconds of the fastest.
//
//	library copy PID DIR TIMES      checkpoints the process's namespace, into the
//	                                same directory again and again
//	library restore PIN DIR TIMES   restores into a fresh namespace each time, and
//	                                pins the last
//
// It needs root. It is not how to call ipc-cr: bin/ipc-cr is.
package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// kinds are those of cmd/ipc-cr.
var kinds = []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}

func main() {
	best, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(best.Nanoseconds())
}

func run(ctx context.Context, args []string) (time.Duration, error) {
	if len(args) != 4 {
		return 0, fmt.Errorf("usage: library copy PID DIR TIMES, or restore PIN DIR TIMES")
	}
	times, err := strconv.Atoi(args[3])
	if err != nil || times < 1 {
		return 0, fmt.Errorf("times: %q is not a positive number", args[3])
	}
	switch args[0] {
	case "copy":
		return checkpoint(ctx, args[1], args[2], times)
	case "restore":
		return restore(ctx, args[1], args[2], times)
	}
	return 0, fmt.Errorf("operation %q: neither copy nor restore", args[0])
}

func checkpoint(ctx context.Context, process, dir string, times int) (time.Duration, error) {
	pid, err := strconv.Atoi(process)
	if err != nil {
		return 0, fmt.Errorf("pid: %w", err)
	}
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	best := time.Duration(math.MaxInt64)
	for range times {
		if err := empty(dir); err != nil {
			return 0, err
		}
		report, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{
			Kinds: kinds, Namespace: ns, Dir: dir, Number: 1,
		})
		if err != nil {
			return 0, err
		}
		best = min(best, report.Duration)
	}
	return best, nil
}

// empty removes the checkpoint before: to free its pages is no part of a copy.
func empty(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Remove(filepath.Join(dir, file.Name())); err != nil {
			return err
		}
	}
	return nil
}

// restore closes no namespace: one that nothing holds is torn down by a worker
// of the kernel's, beside the next restore. Those left behind are empty, and end
// with the process.
func restore(ctx context.Context, pin, dir string, times int) (time.Duration, error) {
	best := time.Duration(math.MaxInt64)
	for left := times - 1; ; left-- {
		ns, err := nsenter.New()
		if err != nil {
			return 0, err
		}
		report, err := plugin.Restore(ctx, plugin.RestoreOptions{
			Kinds: kinds, Namespace: ns, Fresh: true, Dir: dir, Number: images.Auto,
		})
		if err != nil {
			return 0, err
		}
		best = min(best, report.Duration)
		if left == 0 {
			return best, ns.Pin(pin)
		}
		if err := ns.Run(removeQueues); err != nil {
			return 0, err
		}
	}
}
