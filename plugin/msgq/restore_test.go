package msgq

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

func self() kernel.Creator {
	return kernel.Creator{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func (l letter) msgbuf() []byte {
	return append(binary.NativeEndian.AppendUint64(nil, uint64(l.mtype)), l.body...)
}

func letterOf(buf []byte) letter {
	return letter{int64(binary.NativeEndian.Uint64(buf)), string(buf[kernel.HeaderLen:])}
}

// imageOf writes boxes to an images directory, whether a kernel could hold them
// or not, without a JSON file.
func imageOf(t testing.TB, boxes ...box) *images.Set {
	t.Helper()
	path := t.TempDir()
	writeImage(t, path, boxes...)
	dir := must(images.OpenDir(path))
	t.Cleanup(func() { dir.Close() })
	return must(dir.Set(images.Auto))
}

func writeImage(t testing.TB, path string, boxes ...box) {
	t.Helper()
	file := must(os.Create(filepath.Join(path, images.FileName(images.MsgKind, 1))))
	defer file.Close()
	check0(t, images.WriteHeader(file, images.MsgKind))
	var block images.Block
	for i := range boxes {
		head := boxes[i].Queue
		head.QNum = uint32(len(boxes[i].messages))
		block.Queue(&head)
		for _, l := range boxes[i].messages {
			copy(block.Room(len(l.body)), l.msgbuf())
			block.Message(len(l.body))
		}
	}
	must(file.Write(block.Bytes()))
	vars := must(os.Create(filepath.Join(path, images.FileName(images.VarKind, 1))))
	defer vars.Close()
	check0(t, images.WriteVars(vars, &images.Vars{MsgMax: 8192, MsgMnb: 16384, MsgMni: 32000}))
}

// errConflict: a plan that holds one is not carried out.
var errConflict = errors.New("conflict")

// restoring is a restore of queues alone, step by step as the engine takes them.
type restoring struct {
	*world
	set    *images.Set
	policy kind.Policy

	plan   *plan
	sealed bool // nothing is rolled back any more
	// between, if not nil, is called after Make.
	between func()
}

func (r *restoring) run() error {
	err := r.Space.Run(r.inside)
	return errors.Join(err, r.Limits.PutBack())
}

func (r *restoring) inside(k kernel.Kernel) error {
	if err := r.prepare(k); err != nil {
		return err
	}
	if err := r.make(k); err != nil {
		return errors.Join(err, r.plan.Undo(k))
	}
	r.sealed = true
	return r.plan.Seal(r.Target, k)
}

func (r *restoring) prepare(k kernel.Kernel) error {
	img, err := Kind{}.Load(ctx, r.set, r.Owner)
	if err != nil {
		return err
	}
	if err := r.set.Ready(); err != nil {
		return err
	}
	planned, err := img.Plan(ctx, r.Target, k, kind.Wanted{Policy: r.policy})
	if err != nil {
		return err
	}
	r.plan = planned.(*plan)
	if err := r.plan.May(k, kind.Situation{}); err != nil {
		return err
	}
	if conflicts := r.plan.Steps(func(a kind.Action) bool { return a == kind.Conflict }); len(conflicts) > 0 {
		return errConflict
	}
	return nil
}

func (r *restoring) make(k kernel.Kernel) error {
	needs := r.plan.Needs()
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		if err := r.Limits.Raise(k, name, needs[name]); err != nil {
			return err
		}
	}
	if err := r.plan.Begin(k, r.Target, kind.Situation{Needs: needs}); err != nil {
		return err
	}
	if err := r.plan.Make(ctx, r.Target, k); err != nil {
		return err
	}
	if r.between != nil {
		r.between()
	}
	return r.plan.Check(r.Target, k)
}

func (w *world) restore(set *images.Set, policy kind.Policy) error {
	return (&restoring{world: w, set: set, policy: policy}).run()
}

func (w *world) mustRestore(set *images.Set) {
	w.t.Helper()
	check0(w.t, w.restore(set, kind.Fail))
}

// planned returns the plan of a restore, conflicts included.
func (w *world) planned(set *images.Set, policy kind.Policy) (*plan, error) {
	w.t.Helper()
	r := &restoring{world: w, set: set, policy: policy}
	err := r.Space.Run(r.prepare)
	if errors.Is(err, errConflict) {
		err = nil
	}
	return r.plan, errors.Join(err, w.Limits.PutBack())
}
