package e2e_test

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Where the kernel gives namespaces no ids a namespace is told by its tasks: one
// with the inode number of one that has gone is another, and one in which a
// container runs on is the same.
func TestHookWithoutNamespaceIDs(t *testing.T) {
	t.Run("again and again", func(t *testing.T) {
		nstest.Require(t, byRunc.needs...)
		leavesNothing(t)
		againAndAgain(t, withoutIDs(t))
	})
	t.Run("in place", func(t *testing.T) {
		nstest.Require(t, byRunc.needs...)
		leavesNothing(t)
		p := newRuncPod(t, hookConf(t), oneEnd, otherEnd)
		work(t, p.crews...)
		p.members[0].through = withoutIDs(t)
		mustSave(t, p.members[0])
		p.members[0].mustLoadThrough(t, withoutIDs(t))
		work(t, p.crews...)
		accounted(t, p.ns, p.crews)
	})
	t.Run("left running", func(t *testing.T) {
		nstest.Require(t, byRunc.needs...)
		leavesNothing(t)
		leftRunningInPlace(t, withoutIDs(t), talking, nil)
	})
}
