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
	err := s.record(func(field string) error {
		switch field {
		case "format":
			return integer(s, &m.Format)
		case "ns_number":
			return unsigned(s, &m.Number, 32)
		case "created":
			return s.time(&m.Created)
		case "boottime_ns":
			return integer(s, &m.Boottime)
		case "namespace":
			return s.source(&m.Namespace)
		case "method":
			return s.string(&m.Method)
		case "files":
			return s.items(func() error { return s.nextFile(m) })
		case "warnings":
			return s.items(func() error { return s.nextWarning(m) })
		case "objects":
			m.Objects = map[string]json.RawMessage{}
			return s.members(m.Objects)
		}
		return errUnknown
	})
	if err != nil {
		return err
	}
	return s.end()
}

func (s *scanner) nextFile(m *Manifest) error {
	if len(m.Files) == maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	m.Files = append(m.Files, FileSum{})
	return s.fileSum(&m.Files[len(m.Files)-1])
}

func (s *scanner) nextWarning(m *Manifest) error {
	if len(m.Warnings) == MaxWarnings {
		return fmt.Errorf("more than %d warnings", MaxWarnings)
	}
	var text string
	if err := s.string(&text); err != nil {
		return err
	}
	if len(text) > MaxWarning {
		return fmt.Errorf("a warning of more than %d bytes", MaxWarning)
	}
	m.Warnings = append(m.Warnings, text)
	return nil
}

func (s *scanner) source(src *Source) error {
	return s.record(func(field string) error {
		switch field {
		case "boot_id":
			return s.string(&src.BootID)
		case "ns_id":
			return unsigned(s, &src.ID, 64)
		case "inode":
			return unsigned(s, &src.Inode, 64)
		case "tasks":
			return s.items(func() error {
				src.Tasks = append(src.Tasks, SourceTask{})
				return s.task(&src.Tasks[len(src.Tasks)-1])
			})
		}
		return errUnknown
	})
}

func (s *scanner) task(t *SourceTask) error {
	err := s.record(func(field string) error {
		switch field {
		case "pid":
			return integer(s, &t.PID)
		case "start_time":
			return unsigned(s, &t.Start, 64)
		}
		return errUnknown
	})
	if err == nil && t.PID < 1 {
		err = errors.New("a task without a pid")
	}
	return err
}

func (s *scanner) fileSum(f *FileSum) error {
	return s.record(func(field string) error {
		switch field {
		case "name":
			return s.string(&f.Name)
		case "size":
			return integer(s, &f.Size)
		case "crc32c":
			return s.sum(&f.CRC32C)
		}
		return errUnknown
	})
}

func (s *scanner) sum(into *Sum) error {
	var text string
	if err := s.string(&text); err != nil {
		return err
	}
	return into.UnmarshalText([]byte(text))
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
