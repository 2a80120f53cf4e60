package images

import (
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Sums returns size and CRC-32C of every image file of the set: what Check was
// told of those that kinds have read, and what is read now of the others.
func (s *Set) Sums() ([]FileSum, error) {
	var sums []FileSum
	for _, name := range s.names {
		if name == ManifestName(s.Number) {
			continue
		}
		sum, err := s.fileSum(name)
		if err != nil {
			return nil, err
		}
		sums = append(sums, sum)
	}
	return sums, nil
}

func (s *Set) fileSum(name string) (FileSum, error) {
	i := slices.IndexFunc(s.checked, func(sum FileSum) bool { return sum.Name == name })
	if i >= 0 {
		return s.checked[i], nil
	}
	file, _, err := s.Dir.Open(name)
	if err != nil {
		return FileSum{}, err
	}
	defer file.Close()
	sum := &SumReader{R: file}
	if _, err := io.Copy(io.Discard, sum); err != nil {
		return FileSum{}, fmt.Errorf("read %s: %w", s.Dir.join(name), err)
	}
	return FileSum{Name: name, Size: sum.Size, CRC32C: sum.CRC}, nil
}

// CommitManifest writes nothing but the JSON file, for images that CRIU has
// written; manifest.Files is the caller's. The file is complete when it gets its
// name, but not brought to the disk: CRIU's images are not either, and to wait for
// one means to wait for all of them, while tasks are frozen.
func (s *Stage) CommitManifest(manifest *Manifest, details map[string]Details) error {
	if err := s.addManifest(manifest, details); err != nil {
		return err
	}
	f := s.files[len(s.files)-1]
	if err := s.give(f); err != nil {
		return err
	}
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("write %s: %w", s.dir.join(f.name), err)
	}
	if err := unix.Renameat(s.dir.fd(), f.name+tempSuffix, s.dir.fd(), f.name); err != nil {
		return fmt.Errorf("rename to %s: %w", s.dir.join(f.name), err)
	}
	return nil
}

// Written returns when a file of the directory was last written to.
func (d *Dir) Written(name string) (time.Time, error) {
	st, err := d.stat(name)
	return time.Unix(st.Mtim.Unix()), err
}

// RemoveManifest removes the JSON file of namespace number n. No error if there is
// none. The directory must be locked.
func (d *Dir) RemoveManifest(n uint32) error { return d.remove(ManifestName(n)) }

// RemoveSet removes the files of namespace number n, the JSON file first. No error if
// there are none. The directory must be locked.
func (d *Dir) RemoveSet(n uint32) error {
	names, err := d.Holds(n)
	if err != nil {
		return err
	}
	slices.SortStableFunc(names, func(a, b string) int { return removalRank(a, n) - removalRank(b, n) })
	for _, name := range names {
		if err := d.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// RemoveImage removes the image of a kind and of number n. No error if there is
// none. The directory must be locked.
func (d *Dir) RemoveImage(kind string, n uint32) error { return d.remove(FileName(kind, n)) }

// stat looks at a file, which may be set aside.
func (d *Dir) stat(name string) (st unix.Stat_t, err error) {
	fd, err := d.handle(name)
	if err != nil {
		return st, fmt.Errorf("stat %s: %w", d.join(name), err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, fmt.Errorf("stat %s: %w", d.join(name), err)
	}
	return st, nil
}
