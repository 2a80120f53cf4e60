package plugin_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
)

// needy is a namespace's image that needs more than the defaults, and whose own
// limits are lower than what its queues have.
func needy(t *testing.T) (dir string, queues []queue) {
	t.Helper()
	queues = []queue{
		aQueue(1, 0x11, strings.Repeat("a", 10000)),
		aQueue(2, 0x22, "b"),
		aQueue(3, 0x33, strings.Repeat("c", 9000), strings.Repeat("d", 9000)),
	}
	queues[1].QBytes = 70000 // raised
	queues[2].QBytes = 10    // lowered below the content
	ns, dir := nstest.Fresh(t), t.TempDir()
	setLimits(t, ns, sysctls{20000, 80000, 100})
	full := queues[2]
	full.QBytes = 80000
	fill(t, ns, queues[0], queues[1], full)
	setQBytes(t, ns, queues[2])
	setLimits(t, ns, sysctls{50, 60, 5})
	if _, err := tryFrozen(t, ns, dir); err != nil {
		t.Fatal(err)
	}
	return dir, queues
}

var raisedForNeedy = []plugin.LimitChange{
	{Name: "kernel.msgmax", Old: 8192, Raised: 10000},
	{Name: "kernel.msgmnb", Old: 16384, Raised: 70000},
}

// Where nobody else has anything, the limits become the image's; elsewhere they
// are raised for the moment and put back.
func TestLimitsOfTheTarget(t *testing.T) {
	nstest.Require(t, "userns")
	dir, queues := needy(t)
	semaphore := func(t *testing.T, ns *nsenter.Namespace) {
		if err := ns.Run(func() error {
			if _, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, 1, 0o600); errno != 0 {
				return errno
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	segment := func(t *testing.T, ns *nsenter.Namespace) {
		if err := ns.Run(func() error {
			_, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, ns *nsenter.Namespace)
		want    sysctls
		raised  []plugin.LimitChange
	}{
		{"empty", nil, sysctls{50, 60, 5}, nil},
		{"empty with a task", func(t *testing.T, ns *nsenter.Namespace) { inhabit(t, ns) }, sysctls{50, 60, 5}, nil},
		{"a leftover", func(t *testing.T, ns *nsenter.Namespace) { fill(t, ns, withMode(aQueue(1, 0x11), 0o111)) }, sysctls{50, 60, 5}, nil},
		{"a stranger", func(t *testing.T, ns *nsenter.Namespace) { fill(t, ns, aQueue(9, 0x99)) }, defaults, raisedForNeedy},
		{"a semaphore", semaphore, defaults, raisedForNeedy},
		{"a shared memory segment", segment, defaults, raisedForNeedy},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := nstest.Fresh(t)
			if c.prepare != nil {
				c.prepare(t, ns)
			}
			report := load(t, ns, dir, plugin.Fail)
			wantLimits(t, ns, c.want)
			if diff := cmp.Diff(c.raised, report.Limits, cmpopts.EquateEmpty()); diff != "" || report.LimitsSet == (c.want == defaults) {
				t.Errorf("limits set: %t; raised (-want +got):\n%s", report.LimitsSet, diff)
			}
			setLimits(t, ns, sysctls{20000, 80000, 100}) // to be able to copy
			got := stateOf(t, ns).Queues
			if diff := cmp.Diff(queues, got[:3]); diff != "" {
				t.Errorf("queues (-want +got):\n%s", diff)
			}
		})
	}
}

// msgmni is raised for a queue more than it allows.
func TestTooManyQueues(t *testing.T) {
	nstest.Require(t, "userns")
	ns, low := nstest.Fresh(t), sysctls{8192, 16384, 1}
	setLimits(t, ns, low)
	fill(t, ns, stranger)
	report := load(t, ns, saved(t, aQueue(7, 0x77), aQueue(8, 0x88)), plugin.Fail)
	want := []plugin.LimitChange{{Name: "kernel.msgmni", Old: 1, Raised: 3}}
	if diff := cmp.Diff(want, report.Limits); diff != "" {
		t.Errorf("raised (-want +got):\n%s", diff)
	}
	wantLimits(t, ns, low)
	wantQueues(t, ns, stranger, aQueue(7, 0x77), aQueue(8, 0x88))
}

// Completed by a rerun: the queues are there, the limits are not yet.
func TestRerunCompletesLimits(t *testing.T) {
	nstest.Require(t, "userns")
	ns, image := nstest.Fresh(t), nstest.Fresh(t)
	q, dir := aQueue(7, 0x77, "a"), t.TempDir()
	fill(t, ns, q)
	fill(t, image, q)
	setLimits(t, image, sysctls{9000, 20000, 77})
	if _, err := tryFrozen(t, image, dir); err != nil {
		t.Fatal(err)
	}
	report := load(t, ns, dir, plugin.Fail)
	if report.Actions[plugin.ActionKeep] != 1 || !report.LimitsSet {
		t.Errorf("report %+v", report)
	}
	wantLimits(t, ns, sysctls{9000, 20000, 77})
}

// A message longer than msgmax, which was lowered after it was sent, is copied;
// so it is where a restore compares.
func TestMsgmaxLowered(t *testing.T) {
	nstest.Require(t, "userns")
	ns, dir := nstest.Fresh(t), t.TempDir()
	q := aQueue(4, 0x44, "short", strings.Repeat("x", 8000), "short again")
	fill(t, ns, q)
	low := sysctls{100, 16384, 32000}
	setLimits(t, ns, low)
	stats := stateStats(t, ns)
	report := save(t, ns, dir)
	if len(report.Limits) != 1 || report.Limits[0].Name != "kernel.msgmax" || report.Limits[0].Old != 100 || report.Limits[0].Raised < 8000 {
		t.Errorf("raised %+v", report.Limits)
	}
	if diff := cmp.Diff(stats, stateStats(t, ns)); diff != "" {
		t.Errorf("the queue changed:\n%s", diff)
	}
	wantLimits(t, ns, low)
	if vars := readVars(t, dir); vars.MsgMax != 100 {
		t.Errorf("the image has msgmax %d, want 100", vars.MsgMax)
	}
	restored := load(t, ns, dir, plugin.Fail)
	wantLimits(t, ns, low)
	if restored.Actions[plugin.ActionKeep] != 1 {
		t.Errorf("compared: %+v", restored)
	}
	if diff := cmp.Diff([]queue{q}, readImage(t, dir)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	setLimits(t, ns, defaults)
	wantQueues(t, ns, q)
}

// A copy that fails puts msgmax back as well, and not by the guard when the process
// ends: the caller lives on.
func TestMsgmaxPutBackAfterAFailure(t *testing.T) {
	nstest.Require(t, "userns")
	low, failure := sysctls{100, 16384, 32000}, errors.New("this step fails")
	for _, freeze := range []bool{false, true} {
		ns := nstest.Fresh(t)
		fill(t, ns, aQueue(4, 0x44, strings.Repeat("x", 8000)))
		setLimits(t, ns, low)
		raised := sysctls{}
		m := &meddler{copying: func(k kernel.Kernel) (err error) {
			raised, err = limitsIn(k)
			return errors.Join(err, failure)
		}}
		_, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
			Kinds: m.kinds(), Namespace: ns, Dir: t.TempDir(), Number: 1, Freeze: freeze,
		})
		if !errors.Is(err, failure) || raised[0] < 8000 {
			t.Errorf("freeze %t: error %v, under the limits %d", freeze, err, raised)
		}
		wantLimits(t, ns, low)
	}
}

// The queue that tests make in the host's namespace.
const hostID, hostKey = 77<<15 | 32101, 0x69706372

// theHost opens the host's namespace, in which the tests run.
func theHost(t *testing.T) *nsenter.Namespace {
	t.Helper()
	nstest.Require(t, "host")
	host, err := nsenter.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	return host
}

// tryHost is tryLoad by somebody who means the host's namespace.
func tryHost(t *testing.T, host *nsenter.Namespace, dir string) (*plugin.RestoreReport, error) {
	t.Helper()
	return foretold(t, plugin.RestoreOptions{Kinds: kinds, Namespace: host, Host: true, Dir: dir, Number: images.Auto})
}

// The host's limits never change.
func TestHostRestore(t *testing.T) {
	host := theHost(t)
	const id, key = hostID, hostKey
	before := readLimits(t, host)
	t.Cleanup(func() { within(t, host, removeIfThere(id)) })
	larger := int(before[0]) + 1
	large := rawQueue{ID: id, Key: key, Mode: 0o600, QBytes: 10, QNum: 1, Messages: []rawMessage{rawText(1, strings.Repeat("x", larger))}}
	_, err := tryHost(t, host, hostileImage(t, large))
	wantFailure(t, err, "kernel.msgmax", "limits of the host's IPC namespace", fmt.Sprint("sysctl kernel.msgmax=", larger))
	if !errors.Is(err, limits.ErrForbidden) {
		t.Errorf("error %v, want ErrForbidden", err)
	}
	q := aQueue(id, key, "for", "the host")
	report, err := tryHost(t, host, saved(t, q))
	if err != nil {
		t.Fatal(err)
	}
	if report.Actions[plugin.ActionMake] != 1 || report.LimitsSet || report.Frozen != nil || !report.Host {
		t.Errorf("report %+v", report)
	}
	within(t, host, wantQueueIn(t, q))
	if after := readLimits(t, host); after != before {
		t.Errorf("limits %d, were %d", after, before)
	}
}

// The pid of any process outside containers leads into the host's namespace. A restore
// that does not ask for it is refused, and a dry run says so beforehand.
func TestHostHasToBeAskedFor(t *testing.T) {
	host := theHost(t)
	dir := saved(t, aQueue(hostID, hostKey, "for", "the host"))
	t.Cleanup(func() { within(t, host, removeIfThere(hostID)) })
	for _, dry := range []bool{true, false} {
		_, err := plugin.Restore(t.Context(), plugin.RestoreOptions{Kinds: kinds, Namespace: host, Dir: dir, Number: images.Auto, DryRun: dry})
		if !errors.Is(err, plugin.ErrHost) {
			t.Errorf("dry run %t: error %v, want ErrHost", dry, err)
		}
		wantFailure(t, err, "restore "+dir+" into the host's IPC namespace (ipc:[4026531839]): ", "--host")
	}
	within(t, host, func(k kernel.Kernel) error {
		if _, err := k.Stat(hostID); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
			t.Errorf("the queue: %v, want none", err)
		}
		return nil
	})
}
