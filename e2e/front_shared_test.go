package e2e_test

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Pods and user namespaces, with CRIU beside the namespace.
func TestFrontShared(t *testing.T) {
	for _, f := range allFronts {
		through := f.through(t)
		t.Run(f.name, func(t *testing.T) {
			t.Run("into a fresh namespace", func(t *testing.T) { runcPodCarried(t, []int{0, 1}, through) })
			t.Run("in reverse", func(t *testing.T) { runcPodCarried(t, []int{1, 0}, through) })
			t.Run("in place", func(t *testing.T) { runcInPlace(t, through) })
			t.Run("both at once", func(t *testing.T) { bothAtOnce(t, through, through) })
			t.Run("one beside and one not", func(t *testing.T) { bothAtOnce(t, through, nil) })
			t.Run("user namespace", func(t *testing.T) { userNamespaceCarried(t, through) })
		})
	}
}

func TestFrontBusyPod(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	busyPod(t, hookConf(t), 0, allFronts[1].through(t))
}
