package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxFiles bounds what a hostile file makes us keep: there are fewer kinds.
const maxFiles = 64

// ReadManifest reads a JSON file strictly: unknown fields, another format and
// anything after the end are errors. file is the name that errors give.
func ReadManifest(file string, r io.Reader) (*Manifest, error) {
	text, err := readManifest(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(text) > MaxManifest {
		return nil, fault(file, MaxManifest, "larger than %d bytes", MaxManifest)
	}
	s := &scanner{text: text}
	m := &Manifest{}
	if err := s.manifest(m); err != nil {
		return nil, fault(file, int64(s.at), "%v", err)
	}
	if m.Format < 1 || m.Format > ManifestFormat {
		return nil, fault(file, 0, "format %d: this ipc-cr knows up to %d", m.Format, ManifestFormat)
	}
	return m, nil
}

func readManifest(r io.Reader) ([]byte, error) {
	var buf bytes.Buffer
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			buf.Grow(int(min(max(info.Size(), 0), MaxManifest)) + bytes.MinRead)
		}
	}
	_, err := buf.ReadFrom(io.LimitReader(r, MaxManifest+1))
	return buf.Bytes(), err
}

func (s *scanner) manifest(m *Manifest) error {
	err := s.record(map[string]func() error{
		"format":      func() error { return integer(s, &m.Format) },
		"ns_number":   func() error { return unsigned(s, &m.Number, 32) },
		"created":     func() error { return s.time(&m.Created) },
		"boottime_ns": func() error { return integer(s, &m.Boottime) },
		"namespace":   func() error { return s.source(&m.Namespace) },
		"method":      func() error { return s.string(&m.Method) },
		"files": func() error {
			return s.items(func() error {
				if len(m.Files) == maxFiles {
					return fmt.Errorf("more than %d files", maxFiles)
				}
				m.Files = append(m.Files, FileSum{})
				return s.fileSum(&m.Files[len(m.Files)-1])
			})
		},
		"objects": func() error {
			m.Objects = map[string]json.RawMessage{}
			return s.members(m.Objects)
		},
	})
	if err != nil {
		return err
	}
	return s.end()
}

func (s *scanner) source(src *Source) error {
	return s.record(map[string]func() error{
		"boot_id": func() error { return s.string(&src.BootID) },
		"ns_id":   func() error { return unsigned(s, &src.ID, 64) },
		"inode":   func() error { return unsigned(s, &src.Inode, 64) },
		"tasks": func() error {
			return s.items(func() error {
				src.Tasks = append(src.Tasks, SourceTask{})
				return s.task(&src.Tasks[len(src.Tasks)-1])
			})
		},
	})
}

func (s *scanner) task(t *SourceTask) error {
	err := s.record(map[string]func() error{
		"pid":        func() error { return integer(s, &t.PID) },
		"start_time": func() error { return unsigned(s, &t.Start, 64) },
	})
	if err == nil && t.PID < 1 {
		err = errors.New("a task without a pid")
	}
	return err
}

func (s *scanner) fileSum(f *FileSum) error {
	return s.record(map[string]func() error{
		"name": func() error { return s.string(&f.Name) },
		"size": func() error { return integer(s, &f.Size) },
		"crc32c": func() error {
			var text string
			if err := s.string(&text); err != nil {
				return err
			}
			return f.CRC32C.UnmarshalText([]byte(text))
		},
	})
}

func (s *scanner) time(t *time.Time) error {
	var text string
	if err := s.string(&text); err != nil {
		return err
	}
	var err error
	*t, err = time.Parse(time.RFC3339, text)
	return err
}
