package criuhook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/config"
	"github.com/ipc-cr/ipc-cr/plugin/internal/criuproc"
	"github.com/ipc-cr/ipc-cr/plugin/internal/freeze"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// preDump is the moment before CRIU stops the container. CRIU stops nobody else,
// so the neighbours of a namespace that it is going to copy are stopped here.
func (r *run) preDump(ctx context.Context) error {
	ns, err := r.namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	if r.kept.Since, err = fileClock(); err != nil {
		return err
	}
	if ns.IsHost() {
		return r.warnHost(ns)
	}
	size, others, err := plugin.CountAll(ns, r.Kinds)
	if err != nil {
		return err
	}
	r.warnPOSIX(others, false)
	beside, err := r.beside(ns)
	if err != nil {
		return err
	}
	if beside {
		return r.awaitTurn(ctx, ns)
	}
	if size.Objects == 0 && !others.SystemV() {
		return nil
	}
	neighbours, err := r.family().neighbours(ns)
	if err != nil || neighbours == 0 {
		return err
	}
	if others.SystemV() {
		r.warnPod(ns, others, neighbours)
	}
	if size.Objects == 0 {
		return nil
	}
	if r.config.Neighbours == config.IgnoreNeighbours {
		r.say("%s in the namespace may use its queues while CRIU copies them (neighbours = %q)", count(neighbours, "neighbour"), r.config.Neighbours)
		return nil
	}
	return r.hold(ctx, ns)
}

func (r *run) family() family { return family{init: r.InitPID, criu: r.CRIU.PID} }

// hold stops the neighbours until post-dump, or until CRIU ends.
func (r *run) hold(ctx context.Context, ns *nsenter.Namespace) error {
	w, err := r.warden()
	if err != nil {
		return fmt.Errorf("stop the neighbours in %s: %w", ns, err)
	}
	held, err := holdAll(ctx, w, warden.HoldRequest{Namespace: ns, Init: r.InitPID, Limit: r.config.NeighboursMax})
	if err != nil {
		return errors.Join(err, w.End())
	}
	r.kept.Held, r.kept.InDoubt = true, held.Unseen || held.LooseTotal > 0
	if r.kept.HeldBy, err = fileClock(); err != nil {
		return errors.Join(err, w.End())
	}
	r.say("%s of neighbours stopped", count(held.Tasks, "task"))
	if held.Unwatched != "" {
		r.warn("nothing would thaw the neighbours if ipc-cr were stopped itself: %s", held.Unwatched)
	}
	for _, task := range held.Loose {
		if !slices.Contains(r.kept.Loose, task.PID) {
			r.kept.Loose = append(r.kept.Loose, task.PID)
		}
	}
	r.kept.LooseMore = held.LooseTotal > len(held.Loose)
	if held.LooseTotal > 0 {
		t := held.Loose[0]
		r.say("%s of neighbours not stopped, which must not use the queues before the dump is complete: %q (pid %d, tid %d) %s",
			count(held.LooseTotal, "task"), t.Name, t.PID, t.TID, t.Why)
	}
	return nil
}

// How long neighbours are waited for that somebody else keeps frozen.
const (
	// thawing is for those of a cgroup: of a paused pod they stay as they are.
	thawing = time.Second
	// letting is for those that another CRIU has stopped, which has had its turn and is
	// about to let its container go: on a busy machine that takes its time.
	letting = 5 * time.Second
)

// holdAll holds the neighbours and none that only another CRIU run has stopped, and
// tries again where tasks were born too fast to be looked at.
func holdAll(ctx context.Context, w *warden.Warden, request warden.HoldRequest) (warden.Held, error) {
	began, last, tracers := time.Now(), false, tracers{}
	for !last {
		held, err := w.Hold(ctx, request)
		if err != nil {
			return held, err
		}
		limit, released := tracers.waitFor(held)
		if last = time.Since(began) >= limit; last && !released {
			return held, nil
		}
		if _, err := w.Let(); err != nil {
			return held, err
		}
		select {
		case <-ctx.Done():
			return held, fmt.Errorf("wait for neighbours that another CRIU or the freezer keeps stopped: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return w.Hold(ctx, request)
}

// tracers remembers which are a criu: of one that ends the kernel shows that no more,
// before it lets its tasks go.
type tracers map[int]bool

// waitFor returns how long all are waited for together that are not held yet, and whether
// a tracer has gone since one was found under it: to hold that one is to be tried once
// more, even if the time is up.
func (known tracers) waitFor(held warden.Held) (limit time.Duration, released bool) {
	if held.Unseen {
		limit = thawing
	}
	for _, t := range held.Loose {
		if t.Why != freeze.WhyTraced && t.Why != freeze.WhyFrozen {
			continue
		}
		limit = max(limit, thawing)
		tracer := tracerOf(t.TID)
		released = released || t.Why == freeze.WhyTraced && tracer == 0
		isCRIU, asked := known[tracer]
		if tracer != 0 && !asked {
			isCRIU = criuproc.Is(tracer)
			known[tracer] = isCRIU
		}
		if isCRIU {
			limit = letting
		}
	}
	return limit, released
}

// tracerOf returns the thread that traces a task (proc_pid_status(5)), 0 for none.
func tracerOf(tid int) (tracer int) {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	_, after, _ := strings.Cut(string(status), "\nTracerPid:")
	_, _ = fmt.Sscan(after, &tracer)
	return tracer
}

// postDump is the moment after CRIU has written everything: the container is
// still frozen.
func (r *run) postDump(ctx context.Context) (err error) {
	before, found, err := r.recall(PreDump)
	if err != nil {
		return err
	}
	r.earlier = before.Warnings
	defer func() { err = errors.Join(err, r.endWarden()) }()
	ns, err := r.namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	if ns.IsHost() {
		return r.saveHost(ctx, ns)
	}
	beside, err := r.beside(ns)
	switch {
	case err != nil:
		return err
	case beside:
		return r.saveBeside(ctx, ns)
	}
	if !found {
		before.Since = 0
	}
	return r.complete(ctx, ns, before)
}

// complete checks and completes what CRIU has dumped.
func (r *run) complete(ctx context.Context, ns *nsenter.Namespace, before kept) error {
	neighbours, worth, err := r.worth(ns)
	if err != nil || !worth {
		return err
	}
	opt := plugin.CompleteOptions{
		Kinds: r.Kinds, Namespace: ns, Dir: r.path(),
		Lenient: r.config.Neighbours == config.IgnoreNeighbours, Warnings: r.earlier,
	}
	if before.Since != 0 {
		opt.Since = time.Unix(0, before.Since)
	}
	if neighbours > 0 && !opt.Lenient {
		if before.Since == 0 {
			return fmt.Errorf("what was noted at pre-dump is not there any more (in %s): whether the neighbours in %s were stopped meanwhile is not known", state.Place(), ns)
		}
		if opt.BusySince, opt.Stopped, err = r.mayHaveUsed(ns, before); err != nil {
			return err
		}
	}
	report, err := plugin.Complete(ctx, opt)
	if err != nil {
		return err
	}
	r.warnings(report.Warnings)
	total := sum(report.Objects)
	r.say("%s, %s verified", count(total.Objects, "queue"), count(int(total.Messages), "message"))
	if before.Held {
		if err := r.let(report.Number); err != nil {
			return err
		}
	}
	return r.watch(report.Number)
}

// mayHaveUsed returns the second from which on a use of an object leaves CRIU's copy in
// doubt, and what reports the processes whose uses do not. Where all are held who were
// there at pre-dump, and nobody else is there now, whoever used an object in the very
// second in which the last one was stopped did so before.
func (r *run) mayHaveUsed(ns *nsenter.Namespace, before kept) (since int64, stopped func(pid int) bool, err error) {
	since, stopped = time.Unix(0, max(before.Since, before.HeldBy)).Unix(), r.stopped(before)
	if !before.Held || before.InDoubt {
		return since, stopped, nil
	}
	neighbours, err := r.family().neighboursIn(ns)
	if err != nil {
		return 0, nil, err
	}
	if !slices.ContainsFunc(neighbours, func(pid int) bool { return !stopped(pid) }) {
		since++
	}
	return since, stopped, nil
}

// stopped returns what reports the processes that cannot have used an object since
// CRIU stopped the container: its own tasks, and the neighbours that the warden holds.
// Of a process with a task that could not be stopped that task may have ended since. It
// is asked for many objects, while all are frozen, so answers are remembered.
func (r *run) stopped(before kept) func(pid int) bool {
	tracers := []int{r.CRIU.PID}
	if pid := r.wardenPID(); pid != 0 && !before.LooseMore {
		tracers = append(tracers, pid)
	}
	known := map[int]bool{}
	for _, pid := range before.Loose {
		known[pid] = false
	}
	return func(pid int) bool {
		is, asked := known[pid]
		if !asked {
			stopped, err := freeze.StoppedBy(pid, tracers...)
			is = stopped && err == nil
			known[pid] = is
		}
		return is
	}
}

// let lets the neighbours go. If they have run meanwhile, CRIU's copy may be torn
// although it agrees with the namespace: a message may have gone around.
func (r *run) let(number uint32) error {
	w, err := warden.Find(r.CRIU, r.state)
	var stood warden.Stood
	if err == nil {
		stood, err = w.Let()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the neighbours were not frozen until the end, CRIU's copy may be torn: %w", err), r.disown(number))
	}
	r.say("%s of neighbours frozen for %s", count(stood.Tasks, "task"), round(stood.For))
	return nil
}

// disown takes back the JSON file, which would vouch for the images.
func (r *run) disown(number uint32) error {
	dir, err := r.images()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Lock(); err != nil {
		return err
	}
	return dir.RemoveManifest(number)
}

// worth reports whether there is anything to complete: objects, or what an older
// dump has left in the directory, or a namespace that others have too, in which
// that there was none is worth knowing later.
func (r *run) worth(ns *nsenter.Namespace) (neighbours int, worth bool, err error) {
	if neighbours, err = r.family().neighbours(ns); err != nil || neighbours > 0 {
		return neighbours, true, err
	}
	size, err := plugin.Count(ns, r.Kinds)
	if err != nil || size.Objects > 0 {
		return 0, true, err
	}
	dir, err := r.images()
	if err != nil {
		return 0, false, err
	}
	defer dir.Close()
	numbers, err := dir.Numbers()
	if err != nil {
		return 0, false, err
	}
	for _, n := range numbers {
		names, err := dir.Holds(n)
		if err != nil || len(names) > 1 {
			return 0, true, err
		}
	}
	return 0, false, nil
}

// fileClock reads the clock from which the kernel takes the times of files: no
// file that is written later has an earlier time (fs/inode.c, current_time).
func fileClock() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return now.Nano(), nil
}

func sum(all []plugin.Kept) (total plugin.Size) {
	for _, kept := range all {
		total.Objects += kept.Objects
		total.Messages += kept.Messages
		total.Bytes += kept.Bytes
	}
	return total
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
