// Command frozen measures for how long the tasks of a container stand still when
// it is checkpointed, by how many messages of a byte wait in one queue, and draws
// a picture of it: `make picture`.
//
//	frozen -bin PATH -o FILE.svg [-max N]
//
// CRIU is measured with criu itself, by the frozen_time of its stats-dump: with
// ipc-cr beside it (ipc-cr run), and alone up to 30,000 messages. Beyond, it is a
// small C program that copies as criu does (hack/bench/reference); those points
// are hollow. ipc-cr's own checkpoints are measured by the report: with MSG_COPY,
// to which --freeze gives ten seconds at most and which is measured without it
// beyond, and with BPF. Of three the least counts, one where it takes over ten
// seconds.
//
// Needs root, criu, and BPF (ipc-cr check).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/stats"

	"github.com/ipc-cr/ipc-cr/hack/bench/reference"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

func main() {
	bin := flag.String("bin", "bin/ipc-cr", "the ipc-cr that is beside criu")
	out := flag.String("o", "docs/frozen.svg", "the picture")
	most := flag.Int("max", 200_000, "messages, at most")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *bin, *out, *most); err != nil {
		fmt.Fprintln(os.Stderr, "frozen:", err)
		os.Exit(1)
	}
}

// lengths of the queue.
var lengths = []int{100, 300, 1000, 3000, 10_000, 16_384, 30_000, 60_000, 100_000, 200_000}

// mostBeyond is how many messages are copied as criu does: 100,000 take minutes.
const mostBeyond = 100_000

// long is what is measured once.
const long = 10 * time.Second

// A curve is one way of taking a checkpoint.
type curve struct {
	name   string
	color  string
	most   int // messages
	take   measurement
	beyond measurement // instead, for more messages than most; nil for none
	points []point
}

type measurement func(ctx context.Context, t *task, dir string) (time.Duration, error)

type point struct {
	messages int
	took     time.Duration
	beyond   bool
}

// curves are in the order in which they end, from above: the names stand there.
func curves(bin string, p reference.Programs) []*curve {
	return []*curve{
		{name: "criu dump", color: "#b3261e", most: 30_000, take: dump(), beyond: copyLikeCRIU(p)},
		{name: "ipc-cr, MSG_COPY", color: "#b06000", most: 60_000, take: checkpoint(plugin.MethodCopy)},
		{name: "criu dump beside ipc-cr", color: "#1a56b0", most: 200_000, take: dump(bin, "run", "--")},
		{name: "ipc-cr, BPF", color: "#1e7d32", most: 200_000, take: checkpoint(plugin.MethodBPF)},
	}
}

func run(ctx context.Context, bin, out string, most int) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ipc-cr-frozen-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs, err := reference.Build(ctx, dir)
	if err != nil {
		return err
	}
	all := curves(bin, programs)
	for _, n := range lengths {
		if n > most {
			break
		}
		if err := measure(ctx, all, n); err != nil {
			return fmt.Errorf("%d messages: %w", n, err)
		}
	}
	return os.WriteFile(out, draw(all), 0o644)
}

func measure(ctx context.Context, all []*curve, n int) error {
	t, err := startTask(n)
	if err != nil {
		return err
	}
	defer t.end()
	for _, c := range all {
		take := c.take
		switch {
		case n <= c.most:
		case n <= mostBeyond && c.beyond != nil:
			take = c.beyond
		default:
			continue
		}
		took, err := least(ctx, t, take)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.points = append(c.points, point{n, took, n > c.most})
		fmt.Printf("%8d  %-26s %v\n", n, c.name, took.Round(10*time.Microsecond))
	}
	return nil
}

func least(ctx context.Context, t *task, take measurement) (least time.Duration, err error) {
	for i := 0; i < 3 && least < long; i++ {
		took, err := once(ctx, t, take)
		if err != nil {
			return 0, err
		}
		if i == 0 || took < least {
			least = took
		}
	}
	return least, nil
}

func once(ctx context.Context, t *task, take measurement) (_ time.Duration, err error) {
	dir, err := os.MkdirTemp("/dev/shm", "ipc-cr-frozen-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return take(ctx, t, dir)
}

// dump is `criu dump --leave-running`, started with that.
func dump(through ...string) measurement {
	return func(ctx context.Context, t *task, path string) (time.Duration, error) {
		line := append(through[:len(through):len(through)], "criu", "dump", "--tree", fmt.Sprint(t.pid()),
			"--images-dir", path, "--log-file", "dump.log", "--leave-running")
		if text, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%w\n%s", err, text)
		}
		dir, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		defer dir.Close()
		entry, err := stats.CriuGetDumpStats(dir)
		if err != nil {
			return 0, err
		}
		return time.Duration(entry.GetFrozenTime()) * time.Microsecond, nil
	}
}

// copyLikeCRIU is the benchmark's program, which says how many nanoseconds it took.
func copyLikeCRIU(p reference.Programs) measurement {
	return func(ctx context.Context, t *task, dir string) (time.Duration, error) {
		plan := p.Path("plan")
		if err := reference.WritePlan(plan, 8192, t.messages, [][]int{slices.Repeat([]int{1}, t.messages)}); err != nil {
			return 0, err
		}
		line := []string{"copy", fmt.Sprintf("/proc/%d/ns/ipc", t.pid()), dir, plan, "1"}
		out, err := exec.CommandContext(ctx, p.Path("criulike"), line...).Output()
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		return time.Duration(ns), err
	}
}

// unfrozen is from how many messages on MSG_COPY takes too long for --freeze.
const unfrozen = 20_000

func checkpoint(m plugin.Method) measurement {
	return func(ctx context.Context, t *task, dir string) (time.Duration, error) {
		freeze := m != plugin.MethodCopy || t.messages < unfrozen
		report, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{
			Kinds: []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}, Namespace: t.ns, Dir: dir, Number: 1, Method: m, Freeze: freeze,
		})
		switch {
		case err != nil:
			return 0, err
		case report.Method != m:
			return 0, fmt.Errorf("copied with %q: %s", report.Method, report.WhyMethod)
		case report.Frozen == nil:
			return report.Duration, nil
		}
		return report.Frozen.Duration, nil
	}
}
