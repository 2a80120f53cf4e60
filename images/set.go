package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Auto stands for the only number in a directory.
const Auto = -1

// Set is the complete checkpoint of one namespace in a directory: CRIU's files
// and, where ipc-cr wrote it, the JSON file.
type Set struct {
	Dir      *Dir
	Number   uint32
	Manifest *Manifest // nil without a JSON file

	names    []string // of the files that were there
	opened   []string
	checked  []FileSum    // what Checked was told
	manifest func() error // reads the JSON file, once
}

// Set finds the checkpoint of namespace number n, or of the only one with Auto.
func (d *Dir) Set(n int64) (*Set, error) {
	s, err := d.BeginSet(n)
	if err != nil {
		return nil, err
	}
	return s, s.Ready()
}

// BeginSet is Set without Ready, for a caller who has another goroutine call
// Prepare while it reads the images. Manifest is there when Ready has returned.
func (d *Dir) BeginSet(n int64) (*Set, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	number, err := d.choose(numbersOf(names), n)
	if err != nil {
		return nil, err
	}
	s := &Set{Dir: d, Number: number, names: ofNumber(names, number)}
	if err := s.complete(); err != nil {
		return nil, err
	}
	s.manifest = sync.OnceValue(s.readManifest)
	return s, nil
}

// Prepare reads the JSON file for Ready, which tells what is wrong with it. Any
// goroutine may call it, before the directory is closed.
func (s *Set) Prepare() { _ = s.manifest() }

// Ready reads the JSON file, once, and compares with it what Checked was told. It
// waits for Prepare, and is called by who calls Checked.
func (s *Set) Ready() error {
	if err := s.manifest(); err != nil || s.Manifest == nil {
		return err
	}
	for i := range s.checked {
		if err := s.compare(&s.checked[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) choose(numbers []uint32, n int64) (uint32, error) {
	switch {
	case len(numbers) == 0:
		return 0, fmt.Errorf("images directory %s: no image of an IPC namespace (%s-<N>.img): %w", d.path, VarKind, fs.ErrNotExist)
	case n != Auto && (n != int64(uint32(n)) || !slices.Contains(numbers, uint32(n))):
		return 0, fmt.Errorf("images directory %s: no images of namespace number %d, only of %s: %w", d.path, n, list(numbers), fs.ErrNotExist)
	case n != Auto:
		return uint32(n), nil
	case len(numbers) > 1:
		return 0, fmt.Errorf("images directory %s: images of %d namespaces: choose one of %s with --ns-id", d.path, len(numbers), list(numbers))
	}
	return numbers[0], nil
}

func list(numbers []uint32) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = fmt.Sprint(n)
	}
	return strings.Join(texts, ", ")
}

// complete refuses object files without ipcns-var, as CRIU does: they are what
// an unfinished checkpoint leaves.
func (s *Set) complete() error {
	if vars := FileName(VarKind, s.Number); !slices.Contains(s.names, vars) {
		return fmt.Errorf("images directory %s: incomplete checkpoint: %s without %s", s.Dir.path, strings.Join(s.names, ", "), vars)
	}
	return nil
}

func (s *Set) readManifest() error {
	name := ManifestName(s.Number)
	f, _, err := s.Dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if s.Manifest, err = ReadManifest(s.Dir.join(name), f); err != nil {
		return err
	}
	if s.Manifest.Number != s.Number {
		return fault(s.Dir.join(name), 0, "is of namespace number %d", s.Manifest.Number)
	}
	return s.sameFiles()
}

// sameFiles compares the files that the JSON file names with those of the
// directory. The names are compared and never opened.
func (s *Set) sameFiles() error {
	for _, name := range s.names {
		if name != ManifestName(s.Number) && s.sum(name) == nil {
			return s.changed(name, "is not in it")
		}
	}
	for _, sum := range s.Manifest.Files {
		if !slices.Contains(s.names, sum.Name) {
			return s.changed(sum.Name, "is missing")
		}
	}
	return nil
}

func (s *Set) changed(name, how string) error {
	return fmt.Errorf("images directory %s: %q does not agree with %s: %s (if the images were changed on purpose, remove %[3]s)",
		s.Dir.path, name, ManifestName(s.Number), how)
}

func (s *Set) sum(name string) *FileSum {
	for i := range s.Manifest.Files {
		if s.Manifest.Files[i].Name == name {
			return &s.Manifest.Files[i]
		}
	}
	return nil
}

// Path returns the path of a kind's file, for errors.
func (s *Set) Path(kind string) string { return s.Dir.join(FileName(kind, s.Number)) }

// Open opens the file of a kind. fs.ErrNotExist means that there was no object.
func (s *Set) Open(kind string) (*os.File, int64, error) {
	name := FileName(kind, s.Number)
	s.opened = append(s.opened, name)
	return s.Dir.Open(name)
}

// Unopened returns the names of the image files that Open was not asked for:
// those of kinds that the caller does not know.
func (s *Set) Unopened() []string {
	return slices.DeleteFunc(slices.Clone(s.names), func(name string) bool {
		return name == ManifestName(s.Number) || slices.Contains(s.opened, name)
	})
}

// Checked says that a kind's file was read: size bytes with this CRC-32C. Ready
// compares them with the JSON file, which may still be being read.
func (s *Set) Checked(kind string, size int64, crc Sum) {
	s.checked = append(s.checked, FileSum{Name: FileName(kind, s.Number), Size: size, CRC32C: crc})
}

func (s *Set) compare(found *FileSum) error {
	want := s.sum(found.Name)
	switch {
	case want == nil:
		return s.changed(found.Name, "is not in it")
	case want.Size != found.Size:
		return s.changed(found.Name, fmt.Sprintf("%d bytes instead of %d", found.Size, want.Size))
	case want.CRC32C != found.CRC32C:
		return s.changed(found.Name, fmt.Sprintf("CRC-32C %s instead of %s", found.CRC32C, want.CRC32C))
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// SumReader passes on what it reads and keeps the CRC-32C and the number of
// bytes of it.
type SumReader struct {
	R    io.Reader
	Size int64
	CRC  Sum
}

// Read implements io.Reader.
func (s *SumReader) Read(b []byte) (int, error) {
	n, err := s.R.Read(b)
	s.Size += int64(n)
	s.CRC = Sum(Checksum(uint32(s.CRC), b[:n]))
	return n, err
}
