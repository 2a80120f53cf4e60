package msgq

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

func change(f func(b *box)) func() []box {
	return func() []box { return []box{newBox(1, 1, many(2, 5)...), newBox(2, 2).with(f)} }
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		boxes func() []box
		says  string
	}{
		{"the same id twice", change(func(b *box) { b.ID = 1 }), "queue id 1 stands at offset 8 already"},
		{"the same key twice", change(func(b *box) { b.Key = 1 }), "queue key 0x1 stands at offset 8 already"},
		{"an id above the most", change(func(b *box) { b.ID = math.MaxInt32 + 1 }), "2147483648 is above 2147483647"},
		{"an id of -1", change(func(b *box) { b.ID = math.MaxUint32 }), "4294967295 is above 2147483647"},
		{"more than permission bits", change(func(b *box) { b.Mode = 0o1777 }), "mode 01777 has"},
		{"a message type of 0", change(func(b *box) { b.messages = []letter{{0, "x"}} }), "message type 0 is below 1"},
		{"a negative message type", change(func(b *box) { b.messages = []letter{{-5, "x"}} }), "message type -5 is below 1"},
		{"nobody's uid", change(func(b *box) { b.UID = math.MaxUint32 }), "owner uid 4294967295 has no mapping"},
		{"nobody's gid", change(func(b *box) { b.GID = math.MaxUint32 }), "owner gid 4294967295 has no mapping"},
		{"nobody's creator uid", change(func(b *box) { b.CUID = math.MaxUint32 }), "creator uid 4294967295 has no mapping"},
		{"nobody's creator gid", change(func(b *box) { b.CGID = math.MaxUint32 }), "creator gid 4294967295 has no mapping"},
	} {
		w := memoryWorld(t)
		set := imageOf(t, c.boxes()...)
		err := w.restore(set, kind.Replace)
		var format *images.FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want a format error with %q", c.name, err, c.says)
			continue
		}
		if format.File != set.Path(images.MsgKind) || format.Offset <= 8 {
			t.Errorf("%s: %s at %d", c.name, format.File, format.Offset)
		}
		if w.mem.Calls() != 0 {
			t.Errorf("%s: %d calls were made", c.name, w.mem.Calls())
		}
	}
}

func TestLoadAcceptsManyPrivateQueues(t *testing.T) {
	w := memoryWorld(t)
	boxes := []box{newBox(1, 0), newBox(2, 0), newBox(math.MaxInt32, 0), newBox(3, math.MaxUint32)}
	w.mustRestore(imageOf(t, boxes...))
	w.want("restored", boxes...)
}

func TestLoadOfNothing(t *testing.T) {
	w := memoryWorld(t)
	set := imageOf(t)
	if err := os.Remove(set.Path(images.MsgKind)); err != nil {
		t.Fatal(err)
	}
	img, err := Kind{}.Load(ctx, set, w.Owner)
	check0(t, err)
	if img.Size() != (kind.Size{}) {
		t.Errorf("%+v, want nothing", img.Size())
	}
	w.mustRestore(set)
}

// Every byte that is missing or wrong is noticed before anything is made: by the format,
// or else by the JSON file, which knows the size and the checksum.
func TestLoadOfADamagedImage(t *testing.T) {
	w := memoryWorld(t)
	w.put(newBox(1, 1, many(3, 13)...), newBox(2, 0, letter{1, "x"}))
	saved := w.mustSave()
	path := saved.Path(images.MsgKind)
	whole := must(os.ReadFile(path))
	for i := range whole {
		damaged := append([]byte{}, whole...)
		damaged[i] ^= 0x55
		for _, data := range [][]byte{damaged, whole[:i]} {
			check0(t, os.WriteFile(path, data, 0o600))
			target := memoryWorld(t)
			err := target.restore(must(saved.Dir.Set(images.Auto)), kind.Fail)
			if !errors.Is(err, images.ErrFormat) && !disagrees(err, data, whole) || target.mem.Calls() != 0 {
				t.Fatalf("byte %d of %d, length %d: %v after %d calls", i, len(whole), len(data), err, target.mem.Calls())
			}
		}
	}
}

// disagrees reports whether an error says how an image differs from the JSON file's.
func disagrees(err error, data, whole []byte) bool {
	how := fmt.Sprintf("CRC-32C %08x instead of %08x", crc(data), crc(whole))
	if len(data) != len(whole) {
		how = fmt.Sprintf("%d bytes instead of %d", len(data), len(whole))
	}
	return err != nil && strings.Contains(err.Error(), `"ipcns-msg-1.img" does not agree with ipc-cr-1.json: `+how+" ")
}

func crc(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

// swapped maps two users to each other's ids, and nobody else.
func swapped(w *world) {
	m := nsenter.IDMap{{Inside: 0, Outside: 1000, Count: 1}, {Inside: 5, Outside: 0, Count: 1}}
	w.Owner = &nsenter.Owner{UIDs: m, GIDs: m}
}

func TestOwnersAreMapped(t *testing.T) {
	w := memoryWorld(t)
	b := newBox(1, 1).with(func(b *box) { b.UID, b.GID, b.CUID, b.CGID = 1000, 0, 0, 1000 })
	w.put(b)
	swapped(w)
	set := w.mustSave()
	mapped := b.with(func(b *box) { b.UID, b.GID, b.CUID, b.CGID = 0, 5, 5, 0 })
	plain := memoryWorld(t)
	plain.mustRestore(set)
	plain.want("the image's ids", mapped)
	other := memoryWorld(t)
	swapped(other)
	other.mustRestore(set)
	other.want("the namespace's ids", mapped)
	if q := other.stat()[0]; q.UID != 1000 || q.GID != 0 || q.CUID != 0 || q.CGID != 1000 {
		t.Errorf("%+v: the caller's ids are not those of the first namespace", q)
	}
}

func TestOwnerWithoutMapping(t *testing.T) {
	for field, set := range map[string]func(b *box){
		"owner uid":   func(b *box) { b.UID = 77 },
		"owner gid":   func(b *box) { b.GID = 77 },
		"creator uid": func(b *box) { b.CUID = 77 },
		"creator gid": func(b *box) { b.CGID = 77 },
	} {
		w := memoryWorld(t)
		w.put(newBox(1, 1), newBox(2, 2).with(set))
		swapped(w)
		_, err := w.save()
		if want := "queue 2 (key 0x2): " + field + " 77 has no mapping"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("save: %v, want %q", err, want)
		}
		swapped(w)
		before := w.mem.Calls()
		err = w.restore(imageOf(t, newBox(0, 1), newBox(2, 2).with(func(b *box) { b.UID, b.GID, b.CUID, b.CGID = 0, 0, 0, 0; set(b) })), kind.Fail)
		if want := field + " 77 has no mapping"; err == nil || !strings.Contains(err.Error(), want) || w.mem.Calls() != before {
			t.Errorf("restore: %v after %d calls, want %q", err, w.mem.Calls()-before, want)
		}
	}
}

// An image too large to keep is read twice, and must be the same both times.
func TestLargeImageIsCheckedAgain(t *testing.T) {
	boxes := []box{newBox(1, 1, many(90, 100<<10)...).with(func(b *box) { b.QBytes = 16 << 20 }), newBox(2, 2, letter{1, "second"})}
	set := imageOf(t, boxes...)
	path := set.Path(images.MsgKind)
	whole := must(os.ReadFile(path))
	if len(whole) <= images.KeptSize {
		t.Fatalf("the image is of %d bytes only", len(whole))
	}
	w := memoryWorld(t)
	w.mustRestore(set)
	w.want("restored", boxes...)

	for name, at := range map[string]int{"a payload": len(whole)/2 + 100, "the last payload": len(whole) - 8, "a head": 15} {
		w := memoryWorld(t)
		w.mem.Fail = func(call string, n int) error {
			if call == "Create" {
				overwrite(t, path, at, whole[at]^1)
			}
			return nil
		}
		if err := w.restore(set, kind.Fail); !errors.Is(err, images.ErrFormat) {
			t.Errorf("%s changed: %v, want a format error", name, err)
		}
		w.want(name + " changed")
		overwrite(t, path, at, whole[at])
	}
}

func overwrite(t *testing.T, path string, at int, with byte) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	check0(t, err)
	defer file.Close()
	_, err = file.WriteAt([]byte{with}, int64(at))
	check0(t, err)
}

// Cut off between the two readings, in a queue or between two.
func TestLargeImageIsCutOff(t *testing.T) {
	boxes := []box{newBox(1, 1, many(90, 100<<10)...).with(func(b *box) { b.QBytes = 16 << 20 }), newBox(2, 2, letter{1, "second"})}
	set := imageOf(t, boxes...)
	path := set.Path(images.MsgKind)
	size := must(os.Stat(path)).Size()
	img := must(Kind{}.Load(ctx, set, memoryWorld(t).Owner)).(*image)
	for _, length := range []int64{8, img.records[0].offset + 20, size / 2, img.records[1].offset, img.records[1].offset + 20, size - 1} {
		w := memoryWorld(t)
		set := imageOf(t, boxes...)
		w.mem.Fail = func(call string, _ int) error {
			if call == "Create" {
				check0(t, os.Truncate(set.Path(images.MsgKind), length))
			}
			return nil
		}
		if err := w.restore(set, kind.Fail); !errors.Is(err, images.ErrFormat) {
			t.Errorf("cut off after %d of %d bytes: %v, want a format error", length, size, err)
		}
		w.want("cut off")
	}
}

// What CRIU itself wrote.
func TestLoadOfCRIUsImage(t *testing.T) {
	found, err := filepath.Glob("../../images/testdata/criu/*/ipcns-msg-*.img")
	if err != nil || len(found) == 0 {
		t.Fatalf("%v, %d images of CRIU", err, len(found))
	}
	for _, path := range found {
		dir := must(images.OpenDir(filepath.Dir(path)))
		defer dir.Close()
		set, err := dir.Set(images.Auto)
		if err != nil {
			continue
		}
		w := memoryWorld(t)
		w.mustRestore(set)
		w.mustRestore(set) // equal now
		if len(w.stat()) == 0 {
			t.Errorf("%s: nothing was restored", path)
		}
	}
}
