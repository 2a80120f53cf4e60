package msgq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
	"github.com/ipc-cr/ipc-cr/plugin/internal/limits"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/memkernel"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var ctx = context.Background()

// world is a namespace, with what the engine gives a kind.
type world struct {
	*kind.Target
	t   testing.TB
	mem *memkernel.Space // nil on Linux
}

// everybody maps all ids to themselves.
var everybody = nsenter.IDMap{{Count: math.MaxUint32}}

func memoryWorld(t testing.TB) *world {
	mem := memkernel.New()
	return newWorld(t, mem, nil, &nsenter.Owner{Own: true, UIDs: everybody, GIDs: everybody}, mem)
}

func linuxWorld(t testing.TB) *world {
	t.Helper()
	ns := nstest.Fresh(t)
	owner, err := ns.Owner()
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, linux.NewSpace(ns, owner), ns, owner, nil)
}

func newWorld(t testing.TB, space kernel.Space, ns *nsenter.Namespace, owner *nsenter.Owner, mem *memkernel.Space) *world {
	w := &world{t: t, mem: mem, Target: &kind.Target{Space: space, Owner: owner, Limits: limits.NewKeeper(ns, space)}}
	w.Limits.Unshared()
	return w
}

// look calls fn with a kernel that neither counts nor fails.
func (w *world) look(fn func(k kernel.Kernel)) {
	w.t.Helper()
	if w.mem != nil {
		fn(w.mem.Task(neighbour))
		return
	}
	if err := w.Space.Run(func(k kernel.Kernel) error { fn(k); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// neighbour is the pid of another task in the namespace.
const neighbour = 7777

// must ends the test on an error.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func check0(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// box is a queue as a test wants it, or as it was found.
type box struct {
	images.Queue
	messages []letter
}

// letter is a message.
type letter struct {
	mtype int64
	body  string
}

// private boxes have the key 0; natural ones take the id that comes out.
func newBox(id, key uint32, messages ...letter) box {
	me := self()
	return box{images.Queue{
		ID: id, Key: key, UID: me.UID, GID: me.GID, CUID: me.UID, CGID: me.GID, Mode: 0o640, QBytes: 16384,
	}, messages}
}

// with returns a changed copy.
func (b box) with(change func(*box)) box {
	b.messages = slices.Clone(b.messages)
	change(&b)
	return b
}

// put makes queues the way an ordinary program, with the limits out of its way,
// would.
func (w *world) put(boxes ...box) {
	w.t.Helper()
	w.look(func(k kernel.Kernel) {
		limits := map[string]int64{}
		for _, name := range []string{msgmax, msgmnb} {
			limits[name] = must(k.Sysctl(name))[0]
			check0(w.t, k.SetSysctl(name, math.MaxInt32))
		}
		for i := range boxes {
			w.make(k, &boxes[i])
		}
		for name, value := range limits {
			check0(w.t, k.SetSysctl(name, value))
		}
	})
}

func (w *world) make(k kernel.Kernel, b *box) {
	w.t.Helper()
	check0(w.t, k.SetNextID(int32(b.ID)))
	owner, creator := must2(mapOut(&b.Queue, w.Owner))
	id, err := k.Create(int32(b.Key), b.Mode, creator)
	check0(w.t, err)
	if id != int32(b.ID) {
		w.t.Fatalf("created queue %d, want %d", id, b.ID)
	}
	for _, l := range b.messages {
		check0(w.t, k.Send(id, l.msgbuf()))
	}
	check0(w.t, k.Set(id, kernel.Attr{UID: owner.UID, GID: owner.GID, Mode: b.Mode, QBytes: uint64(b.QBytes)}))
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// dump returns everything that a restore promises to restore.
func (w *world) dump() (boxes []box) {
	w.t.Helper()
	w.look(func(k kernel.Kernel) {
		limit := must(k.Sysctl(msgmax))[0]
		check0(w.t, k.SetSysctl(msgmax, math.MaxInt32))
		for _, q := range must(stat(w.Space, k)) {
			b := box{Queue: must(headOf(&q, w.Owner))}
			for index := range int(q.QNum) {
				buf := make([]byte, kernel.HeaderLen+int(q.CBytes))
				n, err := k.Copy(q.ID, buf, index)
				check0(w.t, err)
				b.messages = append(b.messages, letterOf(buf[:kernel.HeaderLen+n]))
			}
			boxes = append(boxes, b)
		}
		check0(w.t, k.SetSysctl(msgmax, limit))
	})
	return boxes
}

// want compares the namespace with boxes, whose number of messages is filled in.
func (w *world) want(when string, want ...box) {
	w.t.Helper()
	got := w.dump()
	want = slices.Clone(want)
	for i := range want {
		want[i].QNum = uint32(len(want[i].messages))
	}
	byIndex := func(a, b box) int { return int(a.ID&0x7fff) - int(b.ID&0x7fff) }
	slices.SortFunc(want, byIndex)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			w.t.Errorf("%s: %s is missing", when, &want[i].Queue)
		case i >= len(want):
			w.t.Errorf("%s: %s should not be there", when, &got[i].Queue)
		default:
			compareBoxes(w.t, when, &got[i], &want[i])
		}
	}
}

func compareBoxes(t testing.TB, when string, got, want *box) {
	t.Helper()
	if got.Queue != want.Queue {
		t.Errorf("%s: %+v, want %+v", when, got.Queue, want.Queue)
		return
	}
	for i := range want.messages {
		if got.messages[i] != want.messages[i] {
			t.Errorf("%s: %s: message %d is %v, want %v", when, &want.Queue, i, got.messages[i], want.messages[i])
			return
		}
	}
}

func (l letter) String() string {
	return fmt.Sprintf("%d:%.20q (%d bytes)", l.mtype, l.body, len(l.body))
}

// sysctls returns the limits.
func (w *world) sysctls() (values [3]int64) {
	w.t.Helper()
	w.look(func(k kernel.Kernel) {
		for i, name := range []string{msgmax, msgmnb, msgmni} {
			values[i] = must(k.Sysctl(name))[0]
		}
	})
	return values
}

// survey surveys the queues and the sysctls.
func (w *world) survey(k kernel.Kernel) (queues, vars kind.Survey, err error) {
	if queues, err = (Kind{}).Survey(w.Target, k); err != nil {
		return nil, nil, err
	}
	vars, err = ipcvar.Kind{}.Survey(w.Target, k)
	return queues, vars, err
}

// save checkpoints the namespace into a fresh directory, as the engine does with
// all tasks stopped.
func (w *world) save() (*images.Set, error) {
	w.t.Helper()
	dir := must(images.OpenDir(w.t.TempDir()))
	w.t.Cleanup(func() { dir.Close() })
	stage := dir.Stage(1, int(self().UID), int(self().GID))
	err := w.Space.Run(func(k kernel.Kernel) error {
		queues, vars, err := w.survey(k)
		if err != nil {
			return err
		}
		details, err := queues.Copy(ctx, w.Target, k, stage)
		if err != nil {
			return err
		}
		if _, err := vars.Copy(ctx, w.Target, k, stage); err != nil {
			return err
		}
		if err := queues.Recheck(w.Target, k); err != nil {
			return err
		}
		err = stage.Describe(&images.Manifest{Format: images.ManifestFormat, Number: 1}, map[string]images.Details{Kind{}.Name(): details})
		if err != nil {
			return err
		}
		return stage.Commit()
	})
	if err := errors.Join(err, w.Limits.PutBack()); err != nil {
		stage.Discard()
		return nil, err
	}
	return dir.Set(images.Auto)
}

func (w *world) mustSave() *images.Set {
	w.t.Helper()
	set, err := w.save()
	check0(w.t, err)
	return set
}
