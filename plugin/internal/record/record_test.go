package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sample() *Record {
	snapshot := Snapshot{Boottime: 12345678901, Created: someTime, Dir: `/var/lib/"odd" <dir>\é`}
	objects := Objects{
		"msgq": {
			{Name: "7 0x77", Sum: 0xcafebabe, Head: []uint32{7, 0x77, 0o600, 0, 0, 0, 0, 16384, 2}, Left: []int64{1764000000, 1764000001, 4711, 20}},
			{Name: "8 0x0", Sum: 0, Head: []uint32{8, math.MaxUint32}},
			{Name: "", Head: []uint32{}, Left: []int64{}},
		},
		"mqueue": {{Name: "/a\nb", Head: []uint32{1}, Left: []int64{-1, math.MaxInt64}}},
	}
	return &Record{
		Target: nsenter.Identity{BootID: "b00t", ID: 5, Inode: 6},
		Taken:  []Taken{{snapshot, true}, {Snapshot{Boottime: 2, Created: someTime}, false}},
		Sources: []Source{
			{Namespace: nsenter.Identity{BootID: "b00t", Inode: 8, Tasks: []nsenter.Task{{PID: 1, Start: 2}, {PID: 3, Start: 4}}}, Objects: Objects{},
				Pending: &Pending{Snapshot: snapshot, Sealing: true, Makes: objects, Leaves: Objects{"msgq": {}}}},
			{Namespace: nsenter.Identity{BootID: "x", ID: 9}, Snapshot: snapshot, Objects: objects,
				Ran: []Ran{{Boottime: 5, Second: 6}, {Boottime: 12345678901, Second: 7, Uptime: 8, Absent: map[string][]string{"msgq": {"7 0x77", "x\ny"}, "sem": {}}}}},
		},
	}
}

func TestEncodeAndParse(t *testing.T) {
	for _, r := range []*Record{sample(), {}} {
		got, err := parse(r.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// Nothing but what would be written is read.
func TestParseIsStrict(t *testing.T) {
	good := string(sample().encode())
	for _, c := range [][2]string{
		{`"format":1`, `"format":2`}, {`"format":1`, `"format":01`}, {`"format":1`, `"format": 1`}, {`"inode":6`, `"inode":6,"inode":6`},
		{`,4711,`, `,4711.0,`}, {`,4711,`, `,,`}, {`-1,`, `-0,`}, {`true`, `1`}, {`"b00t"`, `"b0\u0030t"`}, {`"b00t"`, `"b00t`},
		{`"mqueue":`, `"msgq":`}, {`4294967295`, `4294967296`}, {`"pid":1`, `"pid":0`}, {`"taken"`, `"Taken"`},
		{"2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"}, {"2026-01-02T03:04:05Z", "yesterday"}, {"]}\n", "]}"}, {"]}\n", "]}\n\n"},
	} {
		bad := strings.Replace(good, c[0], c[1], 1)
		if bad == good {
			t.Fatalf("%q is not there", c[0])
		}
		if r, err := parse([]byte(bad)); !errors.Is(err, ErrDamaged) || r != nil {
			t.Errorf("%q for %q: %v", c[1], c[0], err)
		}
	}
	for n := range len(good) {
		if _, err := parse([]byte(good[:n])); !errors.Is(err, ErrDamaged) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	numbers := strings.Replace(good, "[1764000000,", "["+strings.Repeat("1,", maxNumbers), 1)
	if _, err := parse([]byte(numbers)); !errors.Is(err, ErrDamaged) {
		t.Errorf("many numbers: %v", err)
	}
}

// Of one checkpoint the last restore counts, and the oldest are forgotten.
func TestRan(t *testing.T) {
	s := Source{}
	for i := range int64(maxRan + 5) {
		s.NoteRan(Ran{Boottime: i, Second: 1})
	}
	s.NoteRan(Ran{Boottime: 7, Second: 2})
	if len(s.Ran) != maxRan || s.RanAfter(4) != nil || s.RanAfter(8).Second != 1 || s.RanAfter(7).Second != 2 {
		t.Errorf("%d, %v, %v, %v", len(s.Ran), s.RanAfter(4), s.RanAfter(8), s.RanAfter(7))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().encode())
	f.Add((&Record{}).encode())
	f.Add([]byte(`{"format":1,"target":{"boot_id":"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parse(text)
		if (r == nil) != (err != nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err == nil && !bytes.Equal(r.encode(), text) {
			t.Fatal("another text means the same")
		}
	})
}

// many is as many queues as most kernels have, with the longest numbers.
func many(id uint32) Objects {
	list := make([]Object, 32000)
	for i := range list {
		list[i] = Object{Name: fmt.Sprintf("%d 0x%x", id, uint32(math.MaxUint32)), Sum: math.MaxUint32,
			Head: []uint32{id, math.MaxUint32, 511, math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxInt32, math.MaxInt32},
			Left: []int64{1764000000, 1764000000, 4194304, math.MaxInt32}}
	}
	return Objects{"msgq": list}
}

// A full namespace fits, with another restore under way.
func TestManyObjectsFit(t *testing.T) {
	r := &Record{Sources: []Source{{Objects: many(math.MaxInt32), Pending: &Pending{Makes: many(math.MaxInt32)}}}}
	text := r.encode()
	usual := len((&Record{Sources: []Source{{Objects: usualQueues()}}}).encode())
	t.Logf("%d bytes at most, %d usually", len(text), usual)
	if len(text) > state.MaxLarge/4 {
		t.Errorf("%d bytes", len(text))
	}
	began := time.Now()
	got, err := parse(text)
	if err != nil || len(got.Sources[0].Objects["msgq"]) != 32000 {
		t.Fatal(err)
	}
	t.Logf("parsed in %v", time.Since(began))
}

func usualQueues() Objects {
	list := make([]Object, 32000)
	for i := range list {
		id := uint32(i)
		list[i] = Object{Name: fmt.Sprintf("%d 0x%x", id, 0x51000000+id), Sum: 0xcafebabe,
			Head: []uint32{id, 0x51000000 + id, 0o600, 0, 0, 0, 0, 16384, 1}, Left: []int64{1764000000, 1764000000, 123456, 64}}
	}
	return Objects{"msgq": list}
}

// files is a state directory and a namespace.
func files(t *testing.T) (*state.Dir, nsenter.Identity) {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	id, err := nstest.Fresh(t).Identity()
	if err != nil {
		t.Fatal(err)
	}
	return dir, id
}

func TestFile(t *testing.T) {
	dir, id := files(t)
	f, err := Open(t.Context(), dir, id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Read()
	if err != nil || len(r.Sources) > 0 || !r.Target.Same(id) {
		t.Fatalf("%+v, %v, want an empty record", r, err)
	}
	r.Sources = sample().Sources
	if err := f.Write(r); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir, id)
	if diff := cmp.Diff(r, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	info, err := os.Stat(filepath.Join(dir.Path(), fileName(id)))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	f.Close()
}

// One has the record at a time; the others wait, or give up.
func TestTurns(t *testing.T) {
	dir, id := files(t)
	first, err := Open(t.Context(), dir, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), dir, id, 20*time.Millisecond); !errors.Is(err, state.ErrBusy) {
		t.Errorf("%v, want ErrBusy", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Open(ctx, dir, id); !errors.Is(err, enough) || !errors.Is(err, state.ErrBusy) || !strings.Contains(err.Error(), "restores into the namespace: ") {
		t.Errorf("%v, want what was waited for, and the cause", err)
	}
	got := make(chan error)
	go func() {
		second, err := Open(context.Background(), dir, id)
		if err == nil {
			second.Close()
		}
		got <- err
	}()
	first.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A record of the namespace that had the inode number before says nothing.
func TestStaleRecord(t *testing.T) {
	dir, _ := files(t)
	old := nsenter.Identity{BootID: "12345678", Inode: 77, Tasks: []nsenter.Task{{PID: 5, Start: 6}, {PID: 7, Start: 8}}}
	f := Unshared(dir, old)
	if err := f.Write(&Record{Target: old, Sources: sample().Sources}); err != nil {
		t.Fatal(err)
	}
	survivor, stranger := old, old
	survivor.Tasks = []nsenter.Task{{PID: 7, Start: 8}, {PID: 9, Start: 9}}
	stranger.Tasks = []nsenter.Task{{PID: 7, Start: 9}}
	if r, err := Read(dir, survivor); err != nil || len(r.Sources) != 2 || len(r.Target.Tasks) != 2 || r.Target.Tasks[1].PID != 9 {
		t.Errorf("survivor: %+v, %v", r, err)
	}
	if r, err := Read(dir, stranger); err != nil || len(r.Sources) != 0 {
		t.Errorf("stranger: %+v, %v", r, err)
	}
}

func TestNote(t *testing.T) {
	dir, id := files(t)
	for i := range int64(maxTaken + 5) {
		r := Record{}
		if i < maxTaken {
			continue
		}
		for j := range i {
			r.note(Taken{Snapshot: Snapshot{Boottime: j + 1}, LeftRunning: true})
		}
		if want := min(int(i), maxTaken); len(r.Taken) != want || !r.WasLeftRunning(i) || r.WasLeftRunning(0) {
			t.Fatalf("%d notes after %d, want %d", len(r.Taken), i, want)
		}
	}
	for _, running := range []bool{true, false, true} {
		if err := Note(t.Context(), dir, id, Taken{Snapshot{Boottime: 9, Created: someTime, Dir: "/d"}, running}); err != nil {
			t.Fatal(err)
		}
		if r, err := Read(dir, id); err != nil || r.WasLeftRunning(9) != running || len(r.Taken) != 1 {
			t.Errorf("%+v, %v, want %t", r, err, running)
		}
	}
}

// Sweep removes what is proven dead, and nothing else.
func TestSweep(t *testing.T) {
	dir, alive := files(t)
	gone := alive
	gone.ID += 1 << 40
	otherBoot := alive
	otherBoot.BootID = "00000000-0000"
	noID := alive
	noID.ID = 0
	for _, id := range []nsenter.Identity{alive, gone, otherBoot, noID} {
		f, err := Open(t.Context(), dir, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Write(&Record{Target: id}); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	odd := []string{"record-x", "record-12345678-x-y.json", "guard-5.json"}
	for _, name := range odd {
		if err := dir.Create(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	Sweep(dir)
	names, err := dir.Names()
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, name := range names {
		left[name] = true
	}
	want := map[string]bool{fileName(alive): true, fileName(noID): true}
	for _, name := range odd {
		want[name] = true
	}
	if !opensAll(t) { // then nothing is proven of the current boot
		delete(left, fileName(gone))
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("(-want +left):\n%s", diff)
	}
}

// opensAll reports whether the test may open every namespace.
func opensAll(t *testing.T) bool {
	id, err := nstest.Fresh(t).Identity()
	if err != nil {
		t.Fatal(err)
	}
	id.ID += 1 << 41
	_, err = nsenter.OpenIdentity(id)
	return errors.Is(err, nsenter.ErrGone)
}
