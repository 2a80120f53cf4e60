package plugin_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// mappedNS is an IPC namespace of a user namespace whose ids 0 to 9 are those
// from first on.
func mappedNS(t *testing.T, first uint32) *nsenter.Namespace {
	t.Helper()
	nstest.Require(t, "root")
	pid := nstest.InUserNS(t, nsenter.Extent{Inside: 0, Outside: first, Count: 10})
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func owned(q queue, uid, gid, cuid, cgid uint32) queue {
	q.UID, q.GID, q.CUID, q.CGID = uid, gid, cuid, cgid
	return q
}

// The host's root carries a namespace from one user namespace to another: the
// image has the ids of the user namespace, and belongs to its root.
func TestOtherUserNamespace(t *testing.T) {
	const a, b = 300000, 400000
	from, dir := mappedNS(t, a), t.TempDir()
	long := strings.Repeat("l", 20000)
	setLimits(t, from, sysctls{30000, 60000, 50})
	fill(t, from,
		owned(aQueue(3, 0x33, "one", long), a+1, a+2, a+3, a+4),
		owned(aQueue(9, 0, "two"), a, a, a, a))
	was := stateOf(t, from)
	save(t, from, dir)
	wantSame(t, from, was)
	for _, name := range []string{images.FileName(images.MsgKind, 1), images.FileName(images.VarKind, 1), images.ManifestName(1)} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != a || st.Gid != a || info.Mode() != 0o600 {
			t.Errorf("%s belongs to %d:%d, mode %v", name, st.Uid, st.Gid, info.Mode())
		}
	}
	wanted := []queue{owned(aQueue(3, 0x33, "one", long), 1, 2, 3, 4), owned(aQueue(9, 0, "two"), 0, 0, 0, 0)}
	if got := fmt.Sprint(readImage(t, dir)); got != fmt.Sprint(wanted) {
		t.Error("the image has other ids, or other content")
	}
	to := mappedNS(t, b)
	load(t, to, dir, plugin.Fail)
	wantQueues(t, to,
		owned(aQueue(3, 0x33, "one", long), b+1, b+2, b+3, b+4),
		owned(aQueue(9, 0, "two"), b, b, b, b))
	wantLimits(t, to, sysctls{30000, 60000, 50})
	wantImage(t, dir, wanted...)
}

// An owner or creator without a mapping is refused at once.
func TestUnmappedAtCheckpoint(t *testing.T) {
	const a = 300000
	for _, c := range []struct {
		q    queue
		says string
	}{
		{owned(aQueue(3, 0x33), a+10, a, a, a), "owner uid 300010"},
		{owned(aQueue(3, 0x33), a, a+10, a, a), "owner gid 300010"},
		{owned(aQueue(3, 0x33), a, a, 0, a), "creator uid 0"},
		{owned(aQueue(3, 0x33), a, a, a, 0), "creator gid 0"},
	} {
		ns, dir := mappedNS(t, a), filepath.Join(t.TempDir(), "images")
		fill(t, ns, owned(aQueue(2, 0x22), a, a, a, a), c.q)
		was := stateOf(t, ns)
		_, err := trySave(t, ns, dir)
		wantFailure(t, err, "queue 3 (key 0x33)", c.says, "has no mapping")
		wantSame(t, ns, was)
		wantNoCheckpoint(t, dir)
	}
}

func TestUnmappedAtRestore(t *testing.T) {
	const a = 300000
	ns := mappedNS(t, a)
	fill(t, ns, owned(aQueue(2, 0x22), a, a, a, a))
	was := stateOf(t, ns)
	for _, c := range []struct {
		q    queue
		says string
	}{
		{owned(aQueue(3, 0x33), 10, 0, 0, 0), "owner uid 10"},
		{owned(aQueue(3, 0x33), 0, 10, 0, 0), "owner gid 10"},
		{owned(aQueue(3, 0x33), 0, 0, 10, 0), "creator uid 10"},
		{owned(aQueue(3, 0x33), 0, 0, 0, 10), "creator gid 10"},
	} {
		dir := saved(t, c.q)
		_, err := tryLoad(t, ns, dir, plugin.Fail)
		wantFailure(t, err, imagePath(dir, images.MsgKind), "offset 8", "queue 3 (key 0x33)", c.says, "has no mapping")
		wantSame(t, ns, was)
	}
}

// CRIU writes 4294967295 for an owner that it cannot map.
func TestNobodyInTheImage(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	was := stateOf(t, ns)
	for what, q := range map[string]rawQueue{
		"owner uid 4294967295":   {ID: 3, Key: 3, Mode: 0o600, UID: math.MaxUint32},
		"creator uid 4294967295": {ID: 3, Key: 3, Mode: 0o600, CUID: math.MaxUint32},
	} {
		_, err := tryLoad(t, ns, hostileImage(t, rawQueue{ID: 1, Mode: 0o600}, q), plugin.Fail)
		wantFailure(t, err, "queue 3 (key 0x3)", what, "has no mapping")
		wantSame(t, ns, was)
	}
}
