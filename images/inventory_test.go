package images_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ipc-cr/ipc-cr/images"
)

// testdata/criu/tree and testdata/criu/beside are parts of what `criu dump`
// wrote of a shell with one child in an IPC namespace of its own, run outside
// that namespace and, through nsenter, inside.
var trees = map[string]struct{ task, inventory uint32 }{
	"tree":   {9, 3},
	"beside": {3, 3},
}

const (
	inventoryMagic = "\x16\x31\x31\x58"
	idsMagic       = "\x19\x43\x56\x54\x30\x20\x43\x54"
	pstreeMagic    = "\x19\x43\x56\x54\x30\x30\x27\x50"
)

// copyTree copies CRIU's files into a directory of the test's.
func copyTree(t testing.TB, from string) *images.Dir {
	t.Helper()
	path := t.TempDir()
	if err := os.CopyFS(path, os.DirFS(filepath.Join("testdata", "criu", from))); err != nil {
		t.Fatal(err)
	}
	dir := must[*images.Dir](t)(images.OpenDir(path))
	t.Cleanup(func() { dir.Close() })
	return dir
}

func readInventory(t testing.TB, dir *images.Dir) *inventory.InventoryEntry {
	t.Helper()
	file := must[[]byte](t)(os.ReadFile(filepath.Join(dir.Path(), "inventory.img")))
	entry := &inventory.InventoryEntry{}
	size := binary.LittleEndian.Uint32(file[4:8])
	if int(size) != len(file)-8 {
		t.Fatalf("record of %d bytes in a file of %d", size, len(file))
	}
	if err := proto.Unmarshal(file[8:], entry); err != nil {
		t.Fatal(err)
	}
	return entry
}

func TestIPCNumbers(t *testing.T) {
	for name, want := range trees {
		dir := copyTree(t, name)
		if got, err := dir.TaskIPCNumber(); got != want.task || err != nil {
			t.Errorf("%s: the tasks' number %d, %v, want %d", name, got, err, want.task)
		}
		if got, err := dir.InventoryIPCNumber(); got != want.inventory || err != nil {
			t.Errorf("%s: CRIU's number %d, %v, want %d", name, got, err, want.inventory)
		}
	}
}

// What go-criu's generated types read afterwards differs in that number alone,
// what they do not know included.
func TestSetInventoryIPCNumber(t *testing.T) {
	for name := range trees {
		for _, n := range []uint32{1, 10, 127, 128, 1 << 14, 1 << 21, math.MaxUint32} {
			dir := copyTree(t, name)
			want := readInventory(t, dir)
			want.RootIds.IpcNsId = &n
			if err := dir.SetInventoryIPCNumber(n); err != nil {
				t.Fatal(err)
			}
			if got := readInventory(t, dir); !proto.Equal(got, want) {
				t.Errorf("%s, %d: %v, want %v", name, n, got, want)
			}
			if got, err := dir.InventoryIPCNumber(); got != n || err != nil {
				t.Errorf("%s: reads %d, %v, want %d", name, got, err, n)
			}
			if left := must[[]string](t)(filepath.Glob(dir.Path() + "/*tmp*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		}
	}
}

// Bytes, not meaning: the order of fields, longer varints, what a newer CRIU adds
// before, behind and inside, and records behind.
func TestSetInventoryIPCNumberKeepsTheRest(t *testing.T) {
	fixed := protowire.AppendFixed64(protowire.AppendTag(nil, 50, protowire.Fixed64Type), 1)
	with := func(n ...byte) []byte {
		ids := join(sub(99, []byte("new")), varint(12, 5), []byte{7 << 3}, n, fixed, varint(1, 1))
		body := join(sub(12, sub(12, []byte("amdgpu"))), varint(200, 1<<40), sub(3, ids), []byte{1 << 3, 0x82, 0x80, 0x00}, fixed, sub(13, []byte("run")))
		return join([]byte(inventoryMagic), record(body), []byte("behind"))
	}
	old := with(0x83, 0x80, 0x00)
	for n, want := range map[uint32][]byte{
		4:              with(4),
		300:            with(0xac, 2),
		math.MaxUint32: with(0xff, 0xff, 0xff, 0xff, 0xf),
	} {
		dir := copyTree(t, "tree")
		path := filepath.Join(dir.Path(), "inventory.img")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := dir.SetInventoryIPCNumber(n); err != nil {
			t.Fatal(err)
		}
		if got := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(got, want) {
			t.Errorf("%d:\n%x, want\n%x", n, got, want)
		}
	}
}

func TestSetInventoryIPCNumberKeepsOwnerAndMode(t *testing.T) {
	dir := copyTree(t, "tree")
	path := filepath.Join(dir.Path(), "inventory.img")
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 && os.Chown(path, 1000, 1001) == nil {
		uid, gid = 1000, 1001
	}
	if err := os.Chmod(path, 0o641); err != nil {
		t.Fatal(err)
	}
	if err := dir.SetInventoryIPCNumber(10); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != 0o641 || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("mode %#o, owner %d:%d, want 0641, %d:%d", st.Mode&0o7777, st.Uid, st.Gid, uid, gid)
	}
	wantError(t, dir.SetInventoryIPCNumber(0), "inventory.img: 0 is no number of a namespace")
}

func TestUnusedIPCNumber(t *testing.T) {
	dir := copyTree(t, "beside")
	if n, err := dir.UnusedIPCNumber(); n != 9 || err != nil {
		t.Errorf("%d, %v: want 9, CRIU used 1 to 8", n, err)
	}
	for _, step := range []struct{ taken, want uint32 }{{9, 10}, {20, 21}, {math.MaxUint32, 10}, {1, 10}} {
		name := filepath.Join(dir.Path(), images.FileName(images.VarKind, step.taken))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := dir.UnusedIPCNumber(); n != step.want || err != nil {
			t.Errorf("with %d: %d, %v, want %d", step.taken, n, err, step.want)
		}
	}
}

// The ids of another dump that was in the directory before do not count.
func TestTaskIPCNumberIsTheRoots(t *testing.T) {
	dir := copyTree(t, "tree")
	stale := join([]byte(idsMagic), wantRecord(t, &core.TaskKobjIdsEntry{
		VmId: proto.Uint32(1), FilesId: proto.Uint32(1), FsId: proto.Uint32(1), SighandId: proto.Uint32(1), IpcNsId: proto.Uint32(77),
	}))
	if err := os.WriteFile(filepath.Join(dir.Path(), "ids-1.img"), stale, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := dir.TaskIPCNumber(); n != 9 || err != nil {
		t.Errorf("%d, %v, want 9", n, err)
	}
	root := join([]byte(pstreeMagic), wantRecord(t, &pstree.PstreeEntry{
		Pid: proto.Uint32(1), Ppid: proto.Uint32(0), Pgid: proto.Uint32(1), Sid: proto.Uint32(1),
	}))
	if err := os.WriteFile(filepath.Join(dir.Path(), "pstree.img"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := dir.TaskIPCNumber(); n != 77 || err != nil {
		t.Errorf("%d, %v, want 77", n, err)
	}
}

func TestInventoryRefuses(t *testing.T) {
	ids := join(varint(1, 1), varint(7, 3))
	whole := join(varint(1, 2), sub(3, ids))
	for name, c := range map[string]struct {
		image  []byte
		offset int64
	}{
		"nothing":            {nil, 0},
		"half a magic":       {[]byte(inventoryMagic[:3]), 3},
		"other magic":        {join([]byte(pstreeMagic), record(whole)), 0},
		"no record":          {join([]byte(inventoryMagic), []byte{1, 0, 0}), 7},
		"record of 4 GiB":    {join([]byte(inventoryMagic), u32(math.MaxUint32), whole), 4},
		"record cut off":     {join([]byte(inventoryMagic), record(whole)[:len(whole)]), 4},
		"no protobuf":        {join([]byte(inventoryMagic), record(bytes.Repeat([]byte{0xff}, 12))), 8},
		"field number 0":     {join([]byte(inventoryMagic), record(whole, []byte{0, 0})), 8 + int64(len(whole))},
		"end of no group":    {join([]byte(inventoryMagic), record(whole, []byte{9<<3 | 4})), -1},
		"endless groups":     {join([]byte(inventoryMagic), record(bytes.Repeat([]byte{9<<3 | 3}, 60000))), -1},
		"no root_ids":        {join([]byte(inventoryMagic), record(varint(1, 2))), 8},
		"root_ids a number":  {join([]byte(inventoryMagic), record(varint(1, 2), varint(3, 3))), 10},
		"root_ids twice":     {join([]byte(inventoryMagic), record(sub(3, ids), sub(3, ids))), 8 + int64(len(sub(3, ids)))},
		"root_ids cut off":   {join([]byte(inventoryMagic), record([]byte{3<<3 | 2, 100})), 9},
		"no number":          {join([]byte(inventoryMagic), record(sub(3, varint(1, 1)))), 10},
		"number twice":       {join([]byte(inventoryMagic), record(sub(3, join(ids, varint(7, 4))))), 14},
		"number a string":    {join([]byte(inventoryMagic), record(sub(3, sub(7, nil)))), 10},
		"number too long":    {join([]byte(inventoryMagic), record(sub(3, []byte{7 << 3, 0xff, 0xff}))), 11},
		"number 0":           {join([]byte(inventoryMagic), record(sub(3, varint(7, 0)))), 11},
		"number of 33 bits":  {join([]byte(inventoryMagic), record(sub(3, varint(7, 1<<32)))), 11},
		"longer than 64 KiB": {join([]byte(inventoryMagic), record(whole, sub(77, make([]byte, 64<<10)))), 4},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyTree(t, "tree")
			path := filepath.Join(dir.Path(), "inventory.img")
			if err := os.WriteFile(path, c.image, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := dir.InventoryIPCNumber()
			checkOffset(t, err, "inventory.img", c.offset)
			if name == "number 0" || name == "number of 33 bits" {
				return // it may be written over
			}
			if err := dir.SetInventoryIPCNumber(10); !errors.Is(err, images.ErrFormat) {
				t.Errorf("set: %v, want ErrFormat", err)
			}
			if got := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(got, c.image) {
				t.Error("the file was changed")
			}
		})
	}
}

func checkOffset(t *testing.T, err error, file string, offset int64) {
	t.Helper()
	bad, ok := errors.AsType[*images.FormatError](err)
	if !ok || bad.File != file || offset >= 0 && bad.Offset != offset {
		t.Errorf("%v: want a fault of %s at %d", err, file, offset)
	}
}

// A file beyond the bound that ends with its record is refused, not cut.
func TestInventoryIsNotCut(t *testing.T) {
	dir := copyTree(t, "tree")
	whole := join([]byte(inventoryMagic), record(sub(3, varint(7, 3))), make([]byte, 70<<10))
	path := filepath.Join(dir.Path(), "inventory.img")
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dir.SetInventoryIPCNumber(10); !errors.Is(err, images.ErrFormat) {
		t.Errorf("%v, want ErrFormat", err)
	}
}

func TestIPCNumbersOfSpecialFiles(t *testing.T) {
	for what, make := range special {
		for _, name := range []string{"inventory.img", "pstree.img", "ids-21903.img"} {
			t.Run(what+" "+name, func(t *testing.T) {
				dir := copyTree(t, "tree")
				path := filepath.Join(dir.Path(), name)
				os.Remove(path)
				if err := make(t, path); err != nil {
					t.Fatal(err)
				}
				_, err := dir.UnusedIPCNumber()
				wantError(t, err, path+" is "+what+", not a regular file")
				if name == "inventory.img" {
					wantError(t, dir.SetInventoryIPCNumber(10), path+" is "+what+", not a regular file")
				}
			})
		}
	}
}

func TestIPCNumbersMissing(t *testing.T) {
	dir := copyTree(t, "tree")
	os.Remove(filepath.Join(dir.Path(), "ids-21903.img"))
	if _, err := dir.TaskIPCNumber(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "ids-21903.img") {
		t.Errorf("%v: want that ids-21903.img is missing", err)
	}
	os.Remove(filepath.Join(dir.Path(), "inventory.img"))
	if err := dir.SetInventoryIPCNumber(10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v: want that inventory.img is missing", err)
	}
}

func TestVoid(t *testing.T) {
	dir := copyTree(t, "tree")
	for _, name := range []string{"ipc-cr-4.json", "ipcns-var-4.img", "ipcns-msg-4.img", "ipcns-var-5.img"} {
		if err := os.WriteFile(filepath.Join(dir.Path(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := dir.Void(4); err != nil {
			t.Fatal(err)
		}
		held := must[[]string](t)(dir.Holds(4))
		if len(held) != 1 || held[0] != "ipcns-msg-4.img" {
			t.Errorf("%q are left, want the objects' file alone", held)
		}
		if other := must[[]string](t)(dir.Holds(5)); len(other) != 1 {
			t.Errorf("of number 5 there is %q", other)
		}
	}
}
