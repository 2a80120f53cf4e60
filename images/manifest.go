package images

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// ManifestFormat is the version of the JSON file that this package writes. A
// file with a higher one is refused.
const ManifestFormat = 1

// MaxManifest is the largest JSON file that is read, in bytes.
const MaxManifest = 64 << 20

// Manifest is the JSON file ipc-cr-<N>.json beside CRIU's images: what makes
// damage visible, and what CRIU's format cannot hold. CRIU ignores it, and so
// may everybody: without it the images are an ordinary CRIU checkpoint.
//
// It is a claim of whoever wrote it. Restore takes nothing from it but the
// checksums.
type Manifest struct {
	Format    int       `json:"format"`
	Number    uint32    `json:"ns_number"`
	Created   time.Time `json:"created"`     // RFC 3339
	Boottime  int64     `json:"boottime_ns"` // CLOCK_BOOTTIME, ns since boot
	Namespace Source    `json:"namespace"`
	Method    string    `json:"method"`
	Files     []FileSum `json:"files"`
	// Objects holds for each kind, by its name, what it has to tell of its
	// objects, in a form of its own. It is read as it stands: nothing in a
	// restore depends on it.
	Objects map[string]json.RawMessage `json:"objects"`
}

// Details is what a kind tells of its objects: JSON in pieces, because there can
// be very many objects.
type Details [][]byte

// Source identifies the namespace that was checkpointed: boot id and the
// kernel's namespace id, or on kernels without it the inode number and the
// tasks in the namespace.
type Source struct {
	BootID string       `json:"boot_id"`
	ID     uint64       `json:"ns_id,omitempty"`
	Inode  uint64       `json:"inode"`
	Tasks  []SourceTask `json:"tasks,omitempty"`
}

// SourceTask is a task that was in the namespace.
type SourceTask struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start_time"` // clock ticks since boot, proc_pid_stat(5)
}

// FileSum is what the JSON file tells of one image file.
type FileSum struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	CRC32C Sum    `json:"crc32c"`
}

// Sum is a CRC-32C, written as eight hexadecimal digits.
type Sum uint32

// String returns the eight digits.
func (s Sum) String() string { return fmt.Sprintf("%08x", uint32(s)) }

// AppendText implements encoding.TextAppender.
func (s Sum) AppendText(b []byte) ([]byte, error) {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[s>>shift&15])
	}
	return b, nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Sum) MarshalText() ([]byte, error) { return s.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Sum) UnmarshalText(text []byte) error {
	value, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil || len(text) != 8 {
		return fmt.Errorf("checksum %q is not eight hexadecimal digits", text)
	}
	*s = Sum(value)
	return nil
}

// WriteManifest writes the JSON file. What m has in Objects is ignored, details
// is written in its place: it must be valid JSON.
func WriteManifest(w io.Writer, m *Manifest, details map[string]Details) error {
	head := *m
	head.Objects = nil
	text, err := json.MarshalIndent(&head, "", "  ")
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, 64<<10)
	buf.Write(bytes.TrimSuffix(text, []byte("null\n}")))
	buf.WriteByte('{')
	for i, kind := range sortedKeys(details) {
		if i > 0 {
			buf.WriteByte(',')
		}
		fmt.Fprintf(buf, "\n    %q: ", kind)
		for _, piece := range details[kind] {
			buf.Write(piece)
		}
	}
	buf.WriteString("\n  }\n}\n")
	return buf.Flush() // tells of every error before
}

// ReadManifest reads a JSON file strictly: unknown fields, another format and
// anything after the end are errors. file is the name that errors give.
func ReadManifest(file string, r io.Reader) (*Manifest, error) {
	var buf bytes.Buffer
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			buf.Grow(int(min(max(info.Size(), 0), MaxManifest)) + bytes.MinRead)
		}
	}
	_, err := buf.ReadFrom(io.LimitReader(r, MaxManifest+1))
	data := buf.Bytes()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > MaxManifest {
		return nil, fault(file, MaxManifest, "larger than %d bytes", MaxManifest)
	}
	rest, objects, at, err := splitObjects(data)
	if err != nil {
		return nil, fault(file, int64(at), "%v", err)
	}
	m, err := decodeManifest(file, rest)
	if err == nil {
		m.Objects = objects
	}
	return m, err
}

// decodeManifest reads all but the objects.
func decodeManifest(file string, text []byte) (*Manifest, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	m := &Manifest{}
	if err := decoder.Decode(m); err != nil {
		return nil, fault(file, manifestOffset(err, decoder), "%v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fault(file, decoder.InputOffset(), "something follows the end")
	}
	if m.Format < 1 || m.Format > ManifestFormat {
		return nil, fault(file, 0, "format %d: this ipc-cr knows up to %d", m.Format, ManifestFormat)
	}
	return m, nil
}

func manifestOffset(err error, decoder *json.Decoder) int64 {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return syntax.Offset
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return kind.Offset
	}
	return decoder.InputOffset()
}
