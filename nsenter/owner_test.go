package nsenter_test

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func ownerOf(t *testing.T, n *nsenter.Namespace) *nsenter.Owner {
	t.Helper()
	o, err := n.Owner()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The inside column of our own map is the list of the ids that exist here.
func TestOwnOwner(t *testing.T) {
	o := ownerOf(t, nstest.Fresh(t))
	if !o.Own || !o.UIDs.Identity() || !o.GIDs.Identity() {
		t.Fatalf("got %+v", o)
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	m, err := nsenter.ParseIDMap(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint32{0, 1, 65534, 4294967294} {
		_, exists := m.Out(id)
		if got, ok := o.UIDs.In(id); ok != exists || ok && got != id {
			t.Errorf("In(%d) = %d, %t, want %t", id, got, ok, exists)
		}
	}
	if _, ok := o.UIDs.In(4294967295); ok {
		t.Error("4294967295 has a mapping")
	}
}

func TestOwnOwnerLeavesOutOverflowID(t *testing.T) {
	nstest.Require(t, "userns")
	p := nstest.StartInUserNS(t, nil, progOwn)
	line, err := p.Stdout.ReadString('\n')
	if err != nil || line != "true true false false\n" {
		t.Errorf("own, 0, 65534, 4294967295 inside: %q, %v", line, err)
	}
}

// A map that is not written yet is not what a process goes by later.
func TestOwnOwnerIsMappedLater(t *testing.T) {
	p := nstest.StartUnmapped(t, progOwnLater)
	says := func(want string) {
		t.Helper()
		if line, err := p.Stdout.ReadString('\n'); err != nil || line != want {
			t.Fatalf("root has a mapping: %q, %v, want %q", line, err, want)
		}
	}
	says("false\n")
	for file, text := range map[string]string{"uid_map": "0 " + uidText(uint32(os.Geteuid())) + " 1", "gid_map": "0 " + uidText(uint32(os.Getegid())) + " 1"} {
		if file == "gid_map" { // else an unprivileged writer is refused (user_namespaces(7))
			if err := os.WriteFile(procPath(p.PID(), "setgroups"), []byte("deny"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(procPath(p.PID(), file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	p.Stdin.Write([]byte("\n"))
	says("true\n")
}

func childExtents(t *testing.T) []nsenter.Extent {
	nstest.Require(t, "root")
	return []nsenter.Extent{{0, 100000, 10}, {10, 5, 1}, {1000, 300000, 4096}}
}

func TestChildOwner(t *testing.T) {
	extents := childExtents(t)
	pid := nstest.InUserNS(t, extents...)
	want := &nsenter.Owner{UIDs: extents, GIDs: extents}
	byPID := opened(t)(nsenter.OpenPID(pid))
	byPath := opened(t)(nsenter.OpenPath(procPath(pid, "ns/ipc")))
	for _, n := range []*nsenter.Namespace{byPID, byPath} {
		if o := ownerOf(t, n); !reflect.DeepEqual(o, want) {
			t.Errorf("got %+v, want %+v", o, want)
		}
	}
}

func TestChildOwnerUnprivileged(t *testing.T) {
	pid := nstest.InUserNS(t)
	o := ownerOf(t, opened(t)(nsenter.OpenPID(pid)))
	if o.Own || len(o.UIDs) != 1 || o.UIDs[0].Inside != 0 {
		t.Fatalf("got %+v", o)
	}
	status, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := o.UIDs.Out(0)
	if got := strings.Fields(statusField(string(status), "Uid:")); !slices.Equal(got, []string{uidText(uid), uidText(uid), uidText(uid), uidText(uid)}) {
		t.Errorf("its root has the ids %v outside, the map says %d", got, uid)
	}
}

// A task that is in the namespace but not in the owner must not lend its map.
func TestOwnerNeedsTaskOfOwner(t *testing.T) {
	nstest.Require(t, "userns")
	p := nstest.StartInUserNS(t, nil, progWait)
	if _, err := p.Stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ns := opened(t)(nsenter.OpenPID(p.PID()))
	startReady(t, ns, progWait)
	p.Kill()
	o, err := ns.Owner()
	if err == nil || !strings.Contains(err.Error(), "no task found in user:[") {
		t.Errorf("got %+v, %v", o, err)
	}
}

// A task of the owner that has left the namespace still lends its map.
func TestOwnerFoundAnywhere(t *testing.T) {
	nstest.Require(t, "userns")
	p := nstest.StartInUserNS(t, nil, progSplit)
	tid, err := p.Stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	ns := opened(t)(nsenter.OpenPath(procPath(p.PID(), "task/"+strings.TrimSpace(tid)+"/ns/ipc")))
	if o := ownerOf(t, ns); o.Own || o.UIDs[0].Inside != 0 {
		t.Errorf("got %+v", o)
	}
}
