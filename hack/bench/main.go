// Command bench measures ipc-cr side by side with two small C programs of our
// own, in one run, and prints one table: `make bench` runs it (hack/bench/run).
//
//   - criu-like copies and writes a namespace the way CRIU does: a buffer of
//     msgmax bytes, one thread (reference/c/criulike.c);
//   - floor makes the system calls that the work needs and no others, one
//     thread, a buffer of exactly the right size, plain writes, no format, no
//     checks (reference/c/floor.c).
//
// What is timed is the operation, warm. A process that has just started faults in
// its own code and runs it on cold caches: some tenths of a millisecond for a Go
// program, which say nothing about the operation. So one turn of a contender is a process
// that does the operation several times in a row and reports the fastest: five
// times, or once where one takes over half a second, which a first round of one
// operation each finds out. The contenders take turns, and the smallest of at
// least 15 turns each counts (3 where an operation takes over 2 s).
//
// All of them copy and restore a namespace in which their process does not live,
// and stay where they are: an operation is timed from the start of the thread
// that enters the namespace to its end. ipc-cr is its library there, called by a
// program as small as the C programs (hack/bench/library), with the duration of
// its own report: checks, checksums, fsync and renames included. A copy goes into
// the same files again and again. A restore goes into a fresh IPC namespace each
// time, made before the clock starts; those left behind are emptied and kept open,
// so that the kernel tears none down beside the next one. The last of each turn is
// compared with what was copied. Queues are older than a second when they are
// copied, so that ipc-cr has nothing to wait for.
//
// Two things are asked of a whole process and not of an operation: its time from
// exec to exit, and its peak memory, the maximal resident set, the largest of all
// turns. In the rows on these (marked "command") every process does one operation,
// and ipc-cr is the real binary; the times of such rows are cold ones.
//
// For quiet numbers beside other work give it a real-time priority, chrt -r 50;
// not chrt -f: with two CPUs two Go programs under SCHED_FIFO were seen to spin
// for minutes, a CPU each, while their other threads waited for one.
//
// Needs root (a namespace for each run), a C compiler, and 3 GiB of memory: the
// images are in /dev/shm. It changes nothing outside the namespaces it makes.
//
//	-bin PATH       the ipc-cr of the rows on whole processes (default
//	                bin/ipc-cr); without it only the C programs run there.
//	                The other rows measure the library as it is in the tree
//	-shapes REGEXP  only shapes with a matching name
//	-runs N         N turns of each, instead of 15 or 3
//	-quick          3 turns of each, without the long and the large shapes: to
//	                see that everything works, too few for a ratio
//	-check          exit 1 if a limit is exceeded or could not be measured
//
// It is not a test of correctness, and not for comparing two machines: only
// the ratios of one run mean something.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

type options struct {
	bin, shapes  string
	runs         int
	quick, check bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) options {
	var o options
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.StringVar(&o.bin, "bin", "bin/ipc-cr", "the ipc-cr of the rows on whole processes")
	flags.StringVar(&o.shapes, "shapes", "", "only shapes with a name that matches this regular expression")
	flags.IntVar(&o.runs, "runs", 0, "turns of each program (default 15, or 3 where one takes over 2 s)")
	flags.BoolVar(&o.quick, "quick", false, "3 turns, without the long and the large shapes")
	flags.BoolVar(&o.check, "check", false, "exit 1 if a limit is exceeded or could not be measured")
	_ = flags.Parse(args) // ExitOnError
	if o.quick && o.runs == 0 {
		o.runs = 3
	}
	return o
}

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	o := parse(args)
	wanted, err := choose(o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/dev/shm", "ipc-cr-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs, err := build(ctx, dir)
	if err != nil {
		return err
	}
	command, err := command(o.bin)
	if err != nil {
		return err
	}
	b := &bench{
		programs: programs, dir: dir, runs: o.runs, command: command,
		cPrograms: []contender{cProgram("criu-like", programs.Path("criulike")), cProgram("floor", programs.Path("floor"))},
		library:   ipcCRLibrary(programs.Path("library")),
	}
	rows, err := b.all(ctx, wanted)
	if err != nil {
		return err
	}
	over, err := printTable(stdout, rows)
	if err := errors.Join(err, b.failures); err != nil {
		return err
	}
	if o.check && over > 0 {
		return fmt.Errorf("%d limits exceeded or not measured", over)
	}
	return nil
}

// choose returns the shapes that the options select.
func choose(o options) ([]shape, error) {
	match, err := regexp.Compile(o.shapes)
	if err != nil {
		return nil, err
	}
	var wanted []shape
	for _, s := range shapes() {
		if match.MatchString(s.name) && (!o.quick || !s.long) {
			wanted = append(wanted, s)
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("no shape matches %q", o.shapes)
	}
	return wanted, nil
}

// command returns the command as a contender, none if it has not been built.
func command(bin string) ([]contender, error) {
	path, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without the ipc-cr command:", err)
		return nil, nil
	}
	return []contender{ipcCRCommand(path)}, nil
}
