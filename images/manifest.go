package images

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// ManifestFormat is the version of the JSON file that this package writes. A
// file with a higher one is refused.
const ManifestFormat = 1

// MaxManifest is the largest JSON file that is read, in bytes.
const MaxManifest = 64 << 20

// MaxWarnings and MaxWarning bound the warnings of a JSON file: how many there can
// be, and how many bytes one can have. WriteManifest cuts what is more, and says so
// in it; ReadManifest refuses it.
const (
	MaxWarnings = 64
	MaxWarning  = 4 << 10
)

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
	// Warnings are what the checkpoint was warned of, for those who have only the
	// images: at most MaxWarnings texts of at most MaxWarning bytes each.
	Warnings []string `json:"warnings,omitempty"`
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
