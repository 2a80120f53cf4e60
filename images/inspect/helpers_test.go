package inspect_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/images/inspect"
)

// recorder notes the calls. With failAt set, that call fails.
type recorder struct {
	calls  []string
	names  []string
	failAt int
}

var errVisitor = errors.New("the visitor's own error")

func (r *recorder) note(format string, args ...any) error {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
	if len(r.calls) == r.failAt {
		return errVisitor
	}
	return nil
}

func (r *recorder) Begin(f inspect.File) error {
	r.names = append(r.names, f.Name)
	return r.note("begin %q %d", f.Kind, f.Number)
}

func (r *recorder) End(f inspect.File) error {
	if f.Name != r.names[len(r.names)-1] {
		return fmt.Errorf("end of %s in %s", f.Name, r.names[len(r.names)-1])
	}
	return r.note("end %q %d", f.Kind, f.Number)
}

func (r *recorder) Vars(v *images.Vars) error {
	text, err := json.Marshal(v)
	return errors.Join(err, r.note("vars %s", text))
}

func (r *recorder) Queue(q *images.Queue) error { return r.note("queue %+v", *q) }

func (r *recorder) Message(m *images.Payload) error {
	if m.Size > 16 {
		return r.note("message %d %d %08x", m.Type, m.Size, crc32.ChecksumIEEE(m.Bytes()))
	}
	return r.note("message %d %d %x", m.Type, m.Size, m.Bytes())
}

func (r *recorder) EndQueue(q *images.Queue, bytes int64) error {
	return r.note("end of queue %d, %d bytes", q.ID, bytes)
}

func (r *recorder) Manifest(m *images.Manifest) error {
	return r.note("manifest %d %v %s", m.Number, m.Files, m.Objects)
}

// visit returns the calls for what is at a path.
func visit(path string) (*recorder, error) {
	r := &recorder{}
	return r, inspect.Path(path, r)
}

// member is a file of a directory or an archive.
type member struct {
	name string
	data []byte
}

// checkpoint is two namespaces with a JSON file and two kinds that are not
// shown, in the order in which a directory is visited.
func checkpoint(t testing.TB) []member {
	t.Helper()
	var all []member
	for n, from := range []string{"plain", "edges"} {
		number := uint32(n) + 1
		m := &images.Manifest{Format: images.ManifestFormat, Number: number, Created: time.Unix(0, 0).UTC(), Method: "copy"}
		files := []member{
			{images.FileName(images.VarKind, number), criuImage(t, from, images.VarKind)},
			{images.FileName(images.MsgKind, number), criuImage(t, from, images.MsgKind)},
			{images.FileName(images.SemKind, number), bytes.Repeat([]byte("not shown"), 100)},
			{images.FileName(images.ShmKind, number), nil},
		}
		for _, f := range files {
			m.Files = append(m.Files, images.FileSum{Name: f.name, Size: int64(len(f.data)), CRC32C: images.Sum(images.Checksum(0, f.data))})
		}
		var text bytes.Buffer
		if err := images.WriteManifest(&text, m, map[string]images.Details{"msgq": {[]byte(`[{"msqid": 1}]`)}}); err != nil {
			t.Fatal(err)
		}
		all = append(append(all, member{images.ManifestName(number), text.Bytes()}), files...)
	}
	return all
}

func criuImage(t testing.TB, from, kind string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", "criu", from, images.FileName(kind, 9)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func directoryOf(t testing.TB, members []member) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range members {
		if err := os.WriteFile(filepath.Join(dir, m.name), m.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func file(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		header := &tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data))}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packings are the forms of an archive.
var packings = map[string]func(t testing.TB, archive []byte) []byte{
	"tar": func(_ testing.TB, archive []byte) []byte { return archive },
	"gzip": func(t testing.TB, archive []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(archive)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	},
	"zstd": func(t testing.TB, archive []byte) []byte {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(archive, nil)
	},
}
