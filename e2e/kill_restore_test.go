package e2e_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// A restoreKill is a checkpoint that is restored again and again, and killed at
// that.
type restoreKill struct {
	*killer
	dir     string
	want    []queue
	limits  [3]int // of the image
	begun   int    // kills that left queues in the making
	sealing int    // kills that left some open and some closed
}

func TestKilledRestore(t *testing.T) {
	r := &restoreKill{killer: newKiller(t, 200), dir: imagesDir(t)}
	source := nstest.Fresh(t)
	manyQueues(t, source, 300)
	run(t, "checkpoint", "--ns", fdPath(source), "--images-dir", r.dir)
	r.want, r.limits = queuesPastMsgmax(t, source), limits(t, source)
	r.whole(t, "restore", "--ns", fdPath(nstest.Fresh(t)), "--images-dir", r.dir)
	for i := range r.kills {
		r.round(t, i)
	}
	r.sure(t)
	t.Logf("%d left queues in the making, %d while they were being opened", r.begun, r.sealing)
	if !testing.Short() && r.begun == 0 {
		t.Error("no kill left a queue in the making: they came at the wrong moments")
	}
}

func (r *restoreKill) round(t *testing.T, i int) {
	t.Helper()
	target, err := nsenter.New()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	task := startSleeper(t, target)
	defer task.kill(t)
	before := limits(t, target)
	args := []string{"restore", "--pid", fmt.Sprint(task.pid), "--images-dir", r.dir}
	guardToo := i%5 == 4
	r.kill(t, target, i, guardToo, args...)
	checkRuns(t, task.pid)
	withoutGuard(t)
	found := limits(t, target)
	sealed := r.leftovers(t, target)
	if !guardToo {
		r.checkLimits(t, before, found, sealed)
	}
	r.whole(t, args...)
	withoutGuard(t)
	withoutNotes(t, target)
	checkRuns(t, task.pid)
	if got := limits(t, target); got != r.limits {
		t.Errorf("after the rerun msgmax, msgmnb, msgmni are %v, want %v", got, r.limits)
	}
	compareQueues(t, r.want, queuesPastMsgmax(t, target))
	if t.Failed() {
		t.FailNow()
	}
}

// checkLimits wants the limits as before the restore. When the last queue is
// open they become the image's, one after the other.
func (r *restoreKill) checkLimits(t *testing.T, before, found [3]int, sealed bool) {
	t.Helper()
	for i, name := range []string{"msgmax", "msgmnb", "msgmni"} {
		if found[i] != before[i] && !(sealed && found[i] == r.limits[i]) {
			t.Errorf("%s is %d after the kill, before it was %d", name, found[i], before[i])
		}
	}
}

// leftovers checks the queues that a kill has left. While one is missing or
// incomplete none is of use to anybody; sealed says that all are open.
func (r *restoreKill) leftovers(t *testing.T, ns *nsenter.Namespace) (sealed bool) {
	t.Helper()
	found := queuesPastMsgmax(t, ns)
	open, whole, making := 0, 0, map[int][]int{}
	for _, q := range found {
		n := slices.IndexFunc(r.want, func(want queue) bool { return want.ID == q.ID })
		if n < 0 {
			t.Errorf("queue %d is not of the image: %+v", q.ID, q)
			continue
		}
		if want := r.want[n]; inProgress(q, want) {
			making[q.CUID] = append(making[q.CUID], q.ID)
			checkPrefix(t, want, q)
			whole += btoi(len(q.Messages) == len(want.Messages))
		} else {
			compareQueues(t, []queue{want}, []queue{q})
			open++
			whole++
		}
	}
	for user, ids := range making {
		unusable(t, ns, user, ids)
	}
	if open > 0 && whole < len(r.want) {
		t.Errorf("%d queues are open, but only %d of %d are whole", open, whole, len(r.want))
	}
	r.begun += btoi(len(found) > 0 && open == 0)
	r.sealing += btoi(open > 0 && open < len(r.want))
	return open == len(r.want)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// inProgress tells a queue in the making by its mode.
func inProgress(q, want queue) bool {
	if want.Mode == 0o111 {
		return q.Mode == 0o011
	}
	return q.Mode == 0o111
}

func checkPrefix(t *testing.T, want, got queue) {
	t.Helper()
	n := len(got.Messages)
	if want.Key != got.Key || n > len(want.Messages) || !slices.Equal(want.Messages[:n], got.Messages) {
		t.Errorf("a queue in the making is no beginning of its own:\n%+v\nof\n%+v", got, want)
	}
}

// unusable wants that the creator of queues in the making, who owns them, can
// neither send to them nor receive from them.
func unusable(t *testing.T, ns *nsenter.Namespace, user int, ids []int) {
	t.Helper()
	if user == 0 {
		user = 12345 // root may do everything
	}
	inNamespace(t, ns, func() error {
		if err := become(user); err != nil {
			return err
		}
		for _, id := range ids {
			if err := send(id, message{1, ""}); !errors.Is(err, unix.EACCES) {
				t.Errorf("user %d sends to queue %d in the making: %v, want EACCES", user, id, err)
			}
			if err := receive(id); !errors.Is(err, unix.EACCES) {
				t.Errorf("user %d receives from queue %d in the making: %v, want EACCES", user, id, err)
			}
		}
		return nil
	})
}
