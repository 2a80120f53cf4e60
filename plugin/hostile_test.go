package plugin_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
)

// Images that no kernel and no CRIU has written are refused, and the namespace
// is untouched.
func TestHostileImages(t *testing.T) {
	nstest.Require(t, "userns")
	good := rawQueue{ID: 1, Key: 1, Mode: 0o600, QBytes: 16384, QNum: 1, Messages: []rawMessage{rawText(1, "good")}}
	with := func(change func(*rawQueue)) rawQueue {
		q := rawQueue{ID: 2, Key: 2, Mode: 0o600, QBytes: 16384}
		change(&q)
		return q
	}
	holding := func(messages ...rawMessage) rawQueue {
		return with(func(q *rawQueue) { q.QNum, q.Messages = uint64(len(messages)), messages })
	}
	for _, c := range []struct {
		name   string
		queues []rawQueue
		says   string
	}{
		{"4 billion messages", []rawQueue{with(func(q *rawQueue) { q.QNum = math.MaxUint32 })}, "queue 2 (key 0x2): 4294967295 messages in the remaining 0 bytes"},
		{"more messages than there are", []rawQueue{with(func(q *rawQueue) { q.QNum = 2; q.Messages = []rawMessage{rawText(1, "one")} })}, "truncated"},
		{"fewer messages than there are", []rawQueue{with(func(q *rawQueue) { q.Messages = []rawMessage{rawText(1, "one")} })}, "offset"},
		{"a message of 2 GiB", []rawQueue{holding(rawMessage{1, 2 << 30, []byte("short")})}, "message size 2147483648"},
		{"a message of 4 GiB less 1", []rawQueue{holding(rawMessage{1, math.MaxUint32, nil})}, "message size 4294967295"},
		{"type 0", []rawQueue{holding(rawText(0, "x"))}, "message type 0 is below 1"},
		{"type -1", []rawQueue{holding(rawText(math.MaxUint64, "x"))}, "message type -1 is below 1"},
		{"two of one id", []rawQueue{with(func(q *rawQueue) { q.ID = 1 })}, "queue id 1 stands at offset 8 already"},
		{"two of one key", []rawQueue{with(func(q *rawQueue) { q.Key = 1 })}, "queue key 0x1 stands at offset 8 already"},
		{"two of one slot", []rawQueue{with(func(q *rawQueue) { q.ID = 1 + 1<<24 })}, "have the same index 1"},
		{"an id above the kernel's", []rawQueue{with(func(q *rawQueue) { q.ID = 1 << 31 })}, "queue id 2147483648 is above 2147483647"},
		{"more than a mode", []rawQueue{with(func(q *rawQueue) { q.Mode = 0o4600 })}, "mode 04600 has more than permission bits"},
		{"qbytes above the kernel's", []rawQueue{with(func(q *rawQueue) { q.QBytes = math.MaxUint32 })}, "qbytes 4294967295 is above 2147483647"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := nstest.Fresh(t)
			fill(t, ns, stranger)
			was := stateOf(t, ns)
			dir := hostileImage(t, append([]rawQueue{good}, c.queues...)...)
			_, err := tryLoad(t, ns, dir, plugin.Replace)
			wantFailure(t, err, "restore "+dir, c.says)
			wantSame(t, ns, was)
		})
	}
	// The good one is good.
	ns := nstest.Fresh(t)
	load(t, ns, hostileImage(t, good), plugin.Fail)
	wantQueues(t, ns, aQueue(1, 1, "good"))
}

// damaged is a checkpoint of which one file is damaged in every way.
type damaged struct {
	dir, path string
	whole     []byte
	queues    []queue
	ns        *nsenter.Namespace // the target, with a stranger in it
	was       state
	accepted  int
}

func newDamaged(t *testing.T, name string, manifest bool) *damaged {
	t.Helper()
	queues := []queue{aQueue(5, 0x55, "one", ""), aQueue(6, 0, "12345678")}
	d := &damaged{dir: memoryDir(t), queues: queues, ns: nstest.Fresh(t)}
	source := nstest.Fresh(t)
	fill(t, source, queues...)
	fill(t, d.ns, stranger)
	if _, err := tryFrozen(t, source, d.dir); err != nil {
		t.Fatal(err)
	}
	if !manifest {
		withoutManifest(t, d.dir)
	}
	d.path, d.was = filepath.Join(d.dir, name), stateOf(t, d.ns)
	var err error
	if d.whole, err = os.ReadFile(d.path); err != nil {
		t.Fatal(err)
	}
	return d
}

// try restores with other bytes in the file. What is refused has changed
// nothing; what is accepted is there as the image says it.
func (d *damaged) try(t *testing.T, data []byte, how string) (accepted bool) {
	t.Helper()
	writeFile(t, d.path, string(data))
	// Fresh: nobody lives there, and looking for them is what takes time.
	_, err := foretold(t, plugin.RestoreOptions{Kinds: kinds, Namespace: d.ns, Fresh: true, Dir: d.dir, Number: images.Auto})
	if err != nil {
		wantFailure(t, err, "restore "+d.dir, "ipc")
		wantSame(t, d.ns, d.was)
	} else {
		d.accepted++
		want := append([]queue{stranger}, readImage(t, d.dir)...)
		got := stateOf(t, d.ns)
		if diff := cmp.Diff(byID(want), byID(got.Queues)); diff != "" || got.Limits != d.was.Limits {
			t.Errorf("%s: limits %d, queues (-want +got):\n%s", how, got.Limits, diff)
		}
		d.ns = nstest.Fresh(t)
		fill(t, d.ns, stranger)
		d.was = stateOf(t, d.ns)
	}
	if t.Failed() {
		t.Fatalf("%s: %v", how, err)
	}
	return err == nil
}

func byID(queues []queue) map[int32]queue {
	m := map[int32]queue{}
	for _, q := range queues {
		m[q.ID] = q
	}
	return m
}

func (d *damaged) flips(t *testing.T, each int) {
	t.Helper()
	for bit := 0; bit < 8*len(d.whole); bit += each {
		data := bytes.Clone(d.whole)
		data[bit/8] ^= 1 << (bit % 8)
		d.try(t, data, fmt.Sprintf("bit %d of byte %d", bit%8, bit/8))
	}
}

func (d *damaged) truncations(t *testing.T) {
	t.Helper()
	for length := range d.whole {
		if d.try(t, d.whole[:length], fmt.Sprintf("%d bytes", length)) && length > 8 {
			t.Logf("%d bytes are accepted", length)
		}
	}
}

// With the JSON file every damage is seen.
func TestDamagedWithManifest(t *testing.T) {
	nstest.Require(t, "userns")
	for _, kind := range []string{images.MsgKind, images.VarKind} {
		d := newDamaged(t, images.FileName(kind, 1), true)
		d.truncations(t)
		d.flips(t, 1)
		d.try(t, append(bytes.Clone(d.whole), 0), "a byte more")
		if d.accepted > 0 {
			t.Errorf("%s: %d of the damaged files are accepted", kind, d.accepted)
		}
	}
}

// Without it, what is accepted is another valid image.
func TestDamagedWithoutManifest(t *testing.T) {
	nstest.Require(t, "userns")
	for _, kind := range []string{images.MsgKind, images.VarKind} {
		d := newDamaged(t, images.FileName(kind, 1), false)
		d.truncations(t)
		if d.accepted > 2 { // msg: the header alone; after the first queue
			t.Errorf("%s: %d of the truncated files are accepted", kind, d.accepted)
		}
		d.flips(t, 1)
	}
}

// A JSON file that is damaged is refused, or says the same of the images.
func TestDamagedManifest(t *testing.T) {
	nstest.Require(t, "userns")
	d := newDamaged(t, images.ManifestName(1), true)
	d.truncations(t)
	if d.accepted > 1 { // the newline at the end
		t.Errorf("%d truncated files are accepted", d.accepted)
	}
	d.flips(t, 3)
}

// Files that are missing.
func TestMissingFiles(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	was := stateOf(t, ns)
	for _, c := range []struct {
		remove []string
		says   string
	}{
		{ourNames[:1], "ipcns-msg-1.img\" does not agree with ipc-cr-1.json: is missing"},
		{ourNames[1:2], "incomplete checkpoint: ipc-cr-1.json, ipcns-msg-1.img without ipcns-var-1.img"},
		{ourNames[1:3], "incomplete checkpoint: ipcns-msg-1.img without ipcns-var-1.img"},
		{ourNames[:2], "no image of an IPC namespace"},
		{ourNames, "no image of an IPC namespace"},
	} {
		dir := saved(t, aQueue(7, 0x77, "a"))
		for _, name := range c.remove {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := tryLoad(t, ns, dir, plugin.Fail)
		wantFailure(t, err, "images directory "+dir, c.says)
		wantSame(t, ns, was)
	}
}
