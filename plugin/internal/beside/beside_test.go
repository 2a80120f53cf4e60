package beside

import (
	"os"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var idleProgram = nstest.Program("beside.idle", func([]string) { select {} })

// Criu that is noted, and its children, belong to the family, until it has ended;
// its parent and its neighbours do not.
func TestFamily(t *testing.T) {
	nstest.Require(t, "root") // for the state directory
	dir, err := state.Default()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	head, other := nstest.Start(t, nil, idleProgram), nstest.Start(t, nil, idleProgram)
	wants := func(pid int, want bool) {
		t.Helper()
		if got := new(Family).Has(pid); got != want {
			t.Errorf("process %d: %v", pid, got)
		}
	}
	wants(head.PID(), false)
	criu, err := state.Lookup(head.PID())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []state.Process{criu, {PID: other.PID(), Start: 1, PIDNamespace: criu.PIDNamespace}} { // a pid used again
		if err := dir.Create(Name(p), nil); err != nil {
			t.Fatal(err)
		}
		defer dir.Remove(Name(p))
		if got, ok := Named(Name(p)); !ok || got != p {
			t.Errorf("%s names %+v, %v", Name(p), got, ok)
		}
	}
	wants(head.PID(), true)
	wants(other.PID(), false)
	wants(os.Getpid(), false)
	head.Kill()
	head.Wait()
	wants(head.PID(), false)
}

// Below somebody noted is everybody whom that has started.
func TestFamilyOfOurs(t *testing.T) {
	self, err := state.Self()
	if err != nil {
		t.Fatal(err)
	}
	child := nstest.Start(t, nil, idleProgram)
	f := Family{heads: []int{self.PID}, looked: time.Now().Add(time.Hour)}
	if !f.Has(self.PID) || !f.Has(child.PID()) {
		t.Errorf("of %v, process %d is not: %v", lineage.Of(child.PID()), child.PID(), f.Has(self.PID))
	}
	if parent, ok := lineage.Parent(self.PID); !ok || f.Has(parent) {
		t.Errorf("the parent %d is", parent)
	}
}

func TestNamed(t *testing.T) {
	for _, name := range []string{"", "criu-", "criu-1-2.conf", "criu-1-2-3", "criu-1-2-3.conf.part", "criu-01-2-3.conf", "hook-1-2-3.conf"} {
		if criu, ok := Named(name); ok {
			t.Errorf("%q names %+v", name, criu)
		}
	}
}
