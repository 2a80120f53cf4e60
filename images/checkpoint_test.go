package images_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
)

// A generation is a small checkpoint whose every file tells its number, so that
// files of two of them are never taken for one. Each third has no queues.
type generation int

func (g generation) hasQueues() bool { return g%3 != 0 }

func (g generation) vars() *images.Vars {
	return &images.Vars{Sem: []uint32{1, 2, 3, 4}, MsgMax: uint32(g), MsgMnb: 16384, MsgMni: 32000}
}

func (g generation) queue() images.Queue {
	return images.Queue{ID: uint32(g), Key: uint32(g), Mode: 0o600, QBytes: 16384, QNum: 1}
}

// message is larger than a few pages.
func (g generation) message() message { return message{int64(g), pattern(20000 + int(g))} }

func (g generation) manifest(number uint32) *images.Manifest {
	return &images.Manifest{
		Format: images.ManifestFormat, Number: number, Boottime: int64(g),
		Created: time.Unix(int64(g), 0).UTC(), Method: "copy",
		Namespace: images.Source{BootID: "b", ID: uint64(g), Inode: 4026531839},
	}
}

func (g generation) details() map[string]images.Details {
	return map[string]images.Details{"msgq": {fmt.Appendf(nil, "[%d", g), []byte("]")}}
}

// save writes the checkpoint as a command does.
func (g generation) save(dir *images.Dir, number uint32) error {
	if err := errors.Join(dir.Lock(), dir.Sweep()); err != nil {
		return err
	}
	stage := dir.Stage(number, os.Geteuid(), os.Getegid())
	defer stage.Discard()
	if err := g.files(stage); err != nil {
		return err
	}
	if err := stage.Describe(g.manifest(number), g.details()); err != nil {
		return err
	}
	return stage.Commit()
}

func (g generation) files(stage *images.Stage) error {
	vars, err := stage.Create(images.VarKind)
	if err != nil {
		return err
	}
	if err := images.WriteVars(vars, g.vars()); err != nil || !g.hasQueues() {
		return err
	}
	msg, err := stage.Create(images.MsgKind)
	if err != nil {
		return err
	}
	var block images.Block
	q := g.queue()
	block.Queue(&q)
	put(&block, g.message(), len(g.message().Body))
	if err := images.WriteHeader(msg, images.MsgKind); err != nil {
		return err
	}
	_, err = msg.Write(block.Bytes())
	return err
}

// errNoCheckpoint says that a directory was refused as a checkpoint.
var errNoCheckpoint = errors.New("refused")

// load reads the checkpoint in a directory, and finds that all of it is of one
// generation.
func load(dir *images.Dir, number int64) (generation, error) {
	set, err := dir.Set(number)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNoCheckpoint, err)
	}
	data, err := readAll(set, images.VarKind)
	if err != nil {
		return 0, err
	}
	vars, err := images.ReadVars("vars", bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	g := generation(vars.MsgMax)
	if set.Manifest != nil && set.Manifest.Boottime != int64(g) {
		return g, fmt.Errorf("sysctls of generation %d with the JSON file of %d", g, set.Manifest.Boottime)
	}
	return g, g.loadQueues(set)
}

func (g generation) loadQueues(set *images.Set) error {
	data, err := readAll(set, images.MsgKind)
	if errors.Is(err, fs.ErrNotExist) && !g.hasQueues() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sysctls of generation %d: %w", g, err)
	}
	queues, err := decode(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	m := g.message()
	if len(queues) != 1 || queues[0].Queue != g.queue() || queues[0].Messages[0].Type != m.Type || !bytes.Equal(queues[0].Messages[0].Body, m.Body) {
		return fmt.Errorf("sysctls of generation %d with other queues", g)
	}
	return nil
}

func readAll(set *images.Set, kind string) ([]byte, error) {
	f, size, err := set.Open(kind)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := &images.SumReader{R: f}
	data, err := io.ReadAll(sum)
	if err == nil && int64(len(data)) != size {
		err = fmt.Errorf("%s has %d bytes, said %d", kind, len(data), size)
	}
	set.Checked(kind, sum.Size, sum.CRC)
	return data, errors.Join(err, set.Ready())
}

// newDir makes an images directory with the generations, whose numbers are
// those from 1 on.
func newDir(t testing.TB, generations ...generation) *images.Dir {
	t.Helper()
	path := filepath.Join(t.TempDir(), "images")
	for i, g := range append(generations, 0) {
		dir := must[*images.Dir](t)(images.MakeDir(path))
		if i == len(generations) {
			t.Cleanup(func() { dir.Close() })
			return dir
		}
		if err := errors.Join(g.save(dir, uint32(i)+1), dir.Close()); err != nil {
			t.Fatal(err)
		}
	}
	panic("unreachable")
}

// listing returns the names in a directory, sorted.
func listing(t testing.TB, path string) []string {
	t.Helper()
	names := []string{}
	for _, entry := range must[[]os.DirEntry](t)(os.ReadDir(path)) {
		names = append(names, entry.Name())
	}
	slices.Sort(names)
	return names
}
