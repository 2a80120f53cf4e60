// Command bench measures ipc-cr side by side with two small C programs of our
// own, in one run, and prints one table: `make bench` runs it (hack/bench/run).
//
//   - criu-like copies and writes a namespace the way CRIU does: a buffer of
//     msgmax bytes, one thread (c/criulike.c);
//   - floor makes the system calls that the work needs and no others, one
//     thread, a buffer of exactly the right size, plain writes, no format, no
//     checks (c/floor.c).
//
// What is timed is the operation, without process start: the C programs time
// themselves from the first call to the last close; ipc-cr reports the same of
// itself as duration_ns, checks, checksums, fsync and renames included. The
// programs take turns, and the smallest of at least 15 runs each counts (3
// where a run takes over 2 s). Queues are older than a second when they are
// copied, so that ipc-cr has nothing to wait for. Every restore goes into a
// fresh namespace; the first of each program is compared with what was copied.
//
// Peak memory is the program's maximal resident set, the largest of its runs.
//
// Needs root (a namespace for each run), a C compiler, and 3 GiB of memory: the
// images are in /dev/shm. It changes nothing outside the namespaces it makes.
//
//	-bin PATH       the ipc-cr to measure (default bin/ipc-cr); without it
//	                only the C programs run
//	-shapes REGEXP  only shapes with a matching name
//	-runs N         N runs of each, instead of 15 or 3
//	-quick          3 runs of each, without the long and the large shapes: to
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
	flags.StringVar(&o.bin, "bin", "bin/ipc-cr", "the ipc-cr to measure")
	flags.StringVar(&o.shapes, "shapes", "", "only shapes with a name that matches this regular expression")
	flags.IntVar(&o.runs, "runs", 0, "runs of each program (default 15, or 3 where one takes over 2 s)")
	flags.BoolVar(&o.quick, "quick", false, "3 runs, without the long and the large shapes")
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
	contenders, err := contenders(programs, o.bin)
	if err != nil {
		return err
	}
	b := &bench{programs: programs, dir: dir, runs: o.runs, contenders: contenders}
	rows, err := b.all(ctx, wanted)
	if err != nil {
		return err
	}
	over, err := printTable(stdout, rows, contenders)
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

// contenders returns who takes part, in the order of their turns.
func contenders(p programs, bin string) ([]contender, error) {
	all := []contender{cProgram("criu-like", p.path("criulike")), cProgram("floor", p.path("floor"))}
	path, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without ipc-cr:", err)
		return all, nil
	}
	return append(all, ipcCR(path)), nil
}
