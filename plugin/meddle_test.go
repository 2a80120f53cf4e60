package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	kept "github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// meddler is a kind without objects that does something in the namespace at one
// moment, once, which no other program could hit: what a task does that nobody could
// see or stop, or a step that fails.
type meddler struct {
	surveying, copying, beginning, making, checking, sealing func(kernel.Kernel) error
}

var _ plugin.Kind = (*meddler)(nil)

func (m *meddler) kinds() []plugin.Kind { return []plugin.Kind{msgq.Kind{}, m, ipcvar.Kind{}} }

func call(fn func(kernel.Kernel) error, k kernel.Kernel) error {
	if fn == nil {
		return nil
	}
	return fn(k)
}

func (m *meddler) Name() string { return "meddler" }

func (m *meddler) Walking(kernel.Kernel, time.Duration) (least, most time.Duration, err error) {
	return 0, 0, nil
}

func (m *meddler) EachWalking(*kind.Target, kernel.Kernel, func(time.Duration)) error { return nil }

func (m *meddler) Recheck(*kind.Target, kernel.Kernel) error { return nil }

func (m *meddler) Busy(int64, int64, func(int) bool) string { return "" }
func (m *meddler) Size() kind.Size                          { return kind.Size{} }

// Survey and Copy meddle once: the second attempt is left alone.
func (m *meddler) Survey(_ *kind.Target, k kernel.Kernel) (kind.Survey, error) {
	fn := m.surveying
	m.surveying = nil
	return m, call(fn, k)
}

func (m *meddler) Copy(_ context.Context, _ *kind.Target, k kernel.Kernel, _ *images.Stage) (images.Details, error) {
	fn := m.copying
	m.copying = nil
	return nil, call(fn, k)
}

func (m *meddler) Load(context.Context, *images.Set, *nsenter.Owner) (kind.Image, error) {
	return &meddlerImage{m}, nil
}

type meddlerImage struct{ m *meddler }

func (i *meddlerImage) Size() kind.Size   { return kind.Size{} }
func (i *meddlerImage) Close() error      { return nil }
func (i *meddlerImage) Needs() kind.Needs { return nil }

func (i *meddlerImage) Objects() []kept.Object { return nil }

func (i *meddlerImage) Plan(context.Context, *kind.Target, kernel.Kernel, kind.Wanted) (kind.Plan, error) {
	return &meddlerPlan{i.m}, nil
}

type meddlerPlan struct{ m *meddler }

func (p *meddlerPlan) Steps(func(kind.Action) bool) []kind.Step { return nil }
func (p *meddlerPlan) Needs() kind.Needs                        { return nil }
func (p *meddlerPlan) Strangers() int                           { return 0 }
func (p *meddlerPlan) Objects() []kept.Object                   { return nil }
func (p *meddlerPlan) Undo(kernel.Kernel) error                 { return nil }
func (p *meddlerPlan) Absent() []string                         { return nil }
func (p *meddlerPlan) Removes() kind.Size                       { return kind.Size{} }

func (p *meddlerPlan) Save(context.Context, *kind.Target, kernel.Kernel, *images.Stage) (images.Details, error) {
	return nil, nil
}

func (p *meddlerPlan) May(kernel.Kernel, kind.Situation) error { return nil }

func (p *meddlerPlan) Begin(k kernel.Kernel, _ *kind.Target, _ kind.Situation) error {
	return once(&p.m.beginning, k)
}
func (p *meddlerPlan) Make(_ context.Context, _ *kind.Target, k kernel.Kernel) error {
	return once(&p.m.making, k)
}
func (p *meddlerPlan) Check(_ *kind.Target, k kernel.Kernel) error { return once(&p.m.checking, k) }
func (p *meddlerPlan) Seal(_ *kind.Target, k kernel.Kernel) error  { return once(&p.m.sealing, k) }

func once(fn *func(kernel.Kernel) error, k kernel.Kernel) error {
	do := *fn
	*fn = nil
	return call(do, k)
}

// Whatever happens in a namespace during a copy, the copy is not accepted; the
// next one is. With stopped tasks as without: somebody unseen may have done it.
func TestChangedDuringCopy(t *testing.T) {
	nstest.Require(t, "userns")
	left, empty := aQueue(4, 0x44, "a"), aQueue(5, 0x55)
	for _, c := range []struct {
		name   string
		freeze bool
		does   func(kernel.Kernel) error
		queues []queue
		limits sysctls
	}{
		{"a queue is removed", false, func(k kernel.Kernel) error { return k.Remove(5) }, []queue{left}, defaults},
		{"a queue is removed beside stopped tasks", true, func(k kernel.Kernel) error { return k.Remove(5) }, []queue{left}, defaults},
		{"a queue is made", true, func(k kernel.Kernel) error { return makeQueue(k, aQueue(6, 0x66)) }, []queue{left, empty, aQueue(6, 0x66)}, defaults},
		{"a queue is made anew", true, func(k kernel.Kernel) error {
			return errors.Join(k.Remove(5), makeQueue(k, aQueue(5, 0x56)))
		}, []queue{left, aQueue(5, 0x56)}, defaults},
		{"a message is sent", true, func(k kernel.Kernel) error { return k.Send(5, msgbuf(message{3, "x"})) },
			[]queue{left, {ID: 5, Key: 0x55, Mode: 0o600, UID: left.UID, GID: left.GID, CUID: left.CUID, CGID: left.CGID, QBytes: 16384, Messages: []message{{3, "x"}}}}, defaults},
		{"the mode changes", true, func(k kernel.Kernel) error {
			return k.Set(5, kernel.Attr{UID: left.UID, GID: left.GID, Mode: 0o640, QBytes: 16384})
		}, []queue{left, withMode(empty, 0o640)}, defaults},
		{"a limit changes", false, func(k kernel.Kernel) error { return k.SetSysctl("kernel.msgmnb", 20000) }, []queue{left, empty}, sysctls{8192, 20000, 32000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns, dir, m := nstest.Fresh(t), t.TempDir(), &meddler{copying: c.does}
			fill(t, ns, left, empty)
			if !c.freeze {
				save(t, ns, t.TempDir()) // waits for a second of its own
			}
			report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: m.kinds(), Namespace: ns, Dir: dir, Number: 1, Freeze: c.freeze})
			if err != nil {
				t.Fatal(err)
			}
			if report.Attempts != 2 {
				t.Errorf("%d attempts, want 2", report.Attempts)
			}
			fresh := nstest.Fresh(t)
			load(t, fresh, dir, plugin.Fail)
			wantQueues(t, fresh, c.queues...)
			wantLimits(t, fresh, c.limits)
		})
	}
}

// A message that goes away and comes back within one second leaves the same
// statistics, time stamps included. That the second is the one of the copy tells,
// or one that began when the copy had: surveys take their time.
func TestComesAndGoes(t *testing.T) {
	nstest.Require(t, "userns")
	for _, late := range []bool{false, true} {
		nstest.Try(t, func() error { return comeAndGo(t, late) })
	}
}

// comeAndGo has it do so during a copy. The error says that the statistics tell, as
// they do where a new second began between the two moves.
func comeAndGo(t *testing.T, late bool) error {
	ns, before, diff := nstest.Fresh(t), []kernel.Queue(nil), ""
	fill(t, ns, aQueue(tokenHere, 0x10), aQueue(tokenThere, 0x11, "token"))
	save(t, ns, t.TempDir()) // waits for a second of its own
	m := &meddler{
		surveying: func(k kernel.Kernel) error {
			for began := coarseSecond(); late && coarseSecond() == began; {
				time.Sleep(time.Millisecond)
			}
			goAndCome()
			before = statsIn(k)
			return nil
		},
		copying: func(k kernel.Kernel) error {
			goAndCome()
			diff = cmp.Diff(before, statsIn(k))
			return nil
		},
	}
	kinds := []plugin.Kind{m, msgq.Kind{}, ipcvar.Kind{}}
	report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: t.TempDir(), Number: 1})
	if err != nil || report.Attempts != 2 {
		t.Errorf("late %t: report %+v, %v, want 2 attempts", late, report, err)
	}
	if diff != "" {
		return fmt.Errorf("late %t: the statistics tell: %s", late, diff)
	}
	return nil
}

// Tasks of the user namespaces around cannot be looked at. One of them may have entered
// the IPC namespace, and moves messages beside those that are stopped.
func TestComesAndGoesUnseen(t *testing.T) {
	nstest.Require(t, "userns")
	p := nstest.StartInUserNS(t, nil, unseenProgram)
	if said, err := p.Stdout.ReadString('\n'); said != "2 attempts\n" {
		t.Errorf("%q, %v, want 2 attempts", said, err)
	}
}

var unseenProgram = nstest.Program("plugin.unseen", func([]string) {
	dir, err := os.MkdirTemp("", "unseen-") // a test's directory is its user's
	mustBe(err, nil)
	defer os.RemoveAll(dir)
	ns, err := nsenter.Current()
	mustBe(err, nil)
	mustBe(linux.NewSpace(ns, nil).Run(func(k kernel.Kernel) error {
		return errors.Join(makeQueue(k, aQueue(tokenHere, 0x10)), makeQueue(k, aQueue(tokenThere, 0x11, "token")))
	}), nil)
	move := func(kernel.Kernel) error { goAndCome(); return nil }
	m := &meddler{surveying: move, copying: move}
	kinds := []plugin.Kind{m, msgq.Kind{}, ipcvar.Kind{}}
	report, err := plugin.Checkpoint(context.Background(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true})
	mustBe(err, nil)
	fmt.Println(report.Attempts, "attempts")
})

// coarseSecond is the second in which the kernel stamps queues.
func coarseSecond() int64 {
	var now unix.Timespec
	mustBe(unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now), nil)
	return int64(now.Sec)
}

// goAndCome moves the token over and back.
func goAndCome() {
	buf := make([]byte, 16)
	for _, way := range [2][2]int{{tokenThere, tokenHere}, {tokenHere, tokenThere}} {
		n := receive(way[0], buf)
		send(way[1], buf[:8+n])
	}
}

// Until everything is made, whatever fails takes all with it.
func TestRestoreUndone(t *testing.T) {
	nstest.Require(t, "userns")
	dir := savedWith(t, sysctls{20000, 70000, 100}, aQueue(1, 0x11, strings.Repeat("x", 15000)), aQueue(7, 0, "private"))
	failure := errors.New("this step fails")
	fails := func(kernel.Kernel) error { return failure }
	meddles := func(k kernel.Kernel) error { return k.Send(7, msgbuf(message{9, "meddled"})) }
	for _, c := range []struct {
		name string
		m    meddler
		says string
	}{
		{"begin", meddler{beginning: fails}, failure.Error()},
		{"make", meddler{making: fails}, failure.Error()},
		{"check", meddler{checking: fails}, failure.Error()},
		{"somebody sends", meddler{making: meddles}, "restore queue 7 (private): somebody else changed its messages while it was being made"},
		{"somebody removes", meddler{making: func(k kernel.Kernel) error { return k.Remove(7) }}, "restore queue 7 (private): look at it before it is opened: msgctl: invalid argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := nstest.Fresh(t)
			fill(t, ns, stranger)
			was := stateOf(t, ns)
			_, err := plugin.Restore(t.Context(), plugin.RestoreOptions{Kinds: c.m.kinds(), Namespace: ns, Dir: dir, Number: images.Auto})
			wantFailure(t, err, "restore "+dir+" into "+ns.String(), c.says)
			wantSame(t, ns, was)
		})
	}
}

// From the first seal on nothing is rolled back, and a rerun completes it.
func TestRestoreSealedStays(t *testing.T) {
	nstest.Require(t, "userns")
	queues := []queue{aQueue(1, 0x11, "a"), aQueue(7, 0, "b")}
	dir := savedWith(t, sysctls{9000, 20000, 100}, queues...)
	ns, m := nstest.Fresh(t), meddler{sealing: func(kernel.Kernel) error { return errors.New("this step fails") }}
	_, err := plugin.Restore(t.Context(), plugin.RestoreOptions{Kinds: m.kinds(), Namespace: ns, Dir: dir, Number: images.Auto})
	wantFailure(t, err, "this step fails", "they stay: run the restore again")
	wantQueues(t, ns, queues...)
	report := load(t, ns, dir, plugin.Fail)
	if report.Actions[plugin.ActionKeep] != 2 || len(report.Actions) != 1 {
		t.Errorf("rerun: %+v", report)
	}
	wantLimits(t, ns, sysctls{9000, 20000, 100})
}
