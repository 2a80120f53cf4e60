package images

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Stage is a checkpoint being written into a directory. Its files are
// temporaries, complete and on the disk before the first gets its name; Commit
// names them in an order in which no moment leaves files that pass for a
// checkpoint and are none.
//
// Until then they are the writer's alone: what is in them may yet turn out not to
// be what the namespace held, and to be nothing that its root may read.
type Stage struct {
	dir      *Dir
	n        uint32
	uid, gid int
	files    []*StageFile
}

// StageFile is one file of a Stage.
type StageFile struct {
	file *os.File
	kind string
	name string
	size int64
	crc  uint32
}

// Stage begins a checkpoint of namespace number n, whose files will belong to
// uid and gid with mode 0600. The directory must be locked.
func (d *Dir) Stage(n uint32, uid, gid int) *Stage {
	return &Stage{dir: d, n: n, uid: uid, gid: gid}
}

// Create begins the file of a kind.
func (s *Stage) Create(kind string) (*StageFile, error) {
	return s.create(kind, FileName(kind, s.n))
}

func (s *Stage) create(kind, name string) (*StageFile, error) {
	temp := name + tempSuffix
	fd, err := unix.Openat(s.dir.fd(), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", s.dir.join(temp), err)
	}
	f := &StageFile{file: os.NewFile(uintptr(fd), s.dir.join(temp)), kind: kind, name: name}
	s.files = append(s.files, f)
	return f, nil
}

// Write appends to the file.
func (f *StageFile) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	f.crc = crc32.Update(f.crc, castagnoli, b[:n])
	f.size += int64(n)
	return n, err
}

// WriteSummed is Write for bytes whose CRC-32C from an offset on is known.
func (f *StageFile) WriteSummed(b []byte, from int, sum uint32) error {
	n, err := f.file.Write(b)
	if err != nil {
		return err
	}
	f.crc = join(Checksum(f.crc, b[:from]), sum, n-from)
	f.size += int64(n)
	return nil
}

// give makes the file its owner's.
func (s *Stage) give(f *StageFile) error {
	if os.Geteuid() != 0 || s.uid == 0 && s.gid == 0 && os.Getegid() == 0 {
		return nil // nobody but root can give files away
	}
	if err := f.file.Chown(s.uid, s.gid); err != nil {
		return fmt.Errorf("give the image to the root of its user namespace: %w", err)
	}
	return nil
}

// hurry has the kernel begin to write the file out, and find a place for it. When
// that was done for all, the first fsync commits it for all: a file system with a
// journal else makes a commit for each. finish tells what is wrong.
func (f *StageFile) hurry() {
	_ = unix.SyncFileRange(int(f.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// finish brings the file to the disk.
func (f *StageFile) finish() error {
	if err := f.file.Sync(); err != nil {
		return errors.Join(err, f.file.Close())
	}
	return f.file.Close()
}

// sums returns what the JSON file tells of the files so far.
func (s *Stage) sums() []FileSum {
	sums := make([]FileSum, len(s.files))
	for i, f := range s.files {
		sums[i] = FileSum{Name: f.name, Size: f.size, CRC32C: Sum(f.crc)}
	}
	return sums
}

// Describe writes the JSON file, with the kinds' details. It fills in Files: all
// that were created, to which nothing may be written any more.
func (s *Stage) Describe(manifest *Manifest, details map[string]Details) error {
	manifest.Files = s.sums()
	return s.addManifest(manifest, details)
}

func (s *Stage) addManifest(manifest *Manifest, details map[string]Details) error {
	f, err := s.create("", ManifestName(s.n))
	if err != nil {
		return err
	}
	return WriteManifest(f, manifest, details)
}

// Commit gives the files to their owner, brings them to the disk and gives them
// their names: the objects' files, then ipcns-var, then the JSON file, which
// Describe has written. What the directory held of this number is removed before
// the first gets its name, ipcns-var and the JSON file first, without which neither
// CRIU nor ipc-cr takes the rest for a checkpoint.
//
// After an error the directory holds the old checkpoint, or none that passes for
// one; but for the last step's, to bring the names to the disk: then the new one is
// there, and may not be after a crash.
func (s *Stage) Commit() error {
	for _, f := range s.files {
		if err := s.give(f); err != nil {
			return err
		}
		f.hurry()
	}
	for _, f := range s.files {
		if err := f.finish(); err != nil {
			return fmt.Errorf("write to the disk: %w", err)
		}
	}
	if err := s.removeOld(); err != nil {
		return err
	}
	for _, f := range s.inOrder() {
		if err := unix.Renameat(s.dir.fd(), f.name+tempSuffix, s.dir.fd(), f.name); err != nil {
			return fmt.Errorf("rename to %s: %w", s.dir.join(f.name), err)
		}
	}
	return s.dir.sync()
}

// removeOld removes the files of an older checkpoint.
func (s *Stage) removeOld() error {
	old, err := s.dir.Holds(s.n)
	if err != nil || len(old) == 0 {
		return err
	}
	for _, name := range old {
		if err := s.removable(name); err != nil {
			return err
		}
	}
	slices.SortStableFunc(old, func(a, b string) int { return removalRank(a, s.n) - removalRank(b, s.n) })
	for _, name := range old {
		if err := s.dir.remove(name); err != nil {
			return err
		}
	}
	return s.dir.sync()
}

// removable refuses what unlink would, before anything is removed.
func (s *Stage) removable(name string) error {
	st, err := s.dir.stat(name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("remove the old %s: %w", s.dir.join(name), unix.EISDIR)
	}
	return nil
}

func removalRank(name string, n uint32) int {
	switch name {
	case ManifestName(n):
		return 0
	case FileName(VarKind, n):
		return 1
	}
	return 2
}

// inOrder returns the files in the order in which they get their names.
func (s *Stage) inOrder() []*StageFile {
	files := slices.Clone(s.files)
	slices.SortStableFunc(files, func(a, b *StageFile) int { return namingRank(a) - namingRank(b) })
	return files
}

func namingRank(f *StageFile) int {
	switch f.kind {
	case "":
		return 2
	case VarKind:
		return 1
	}
	return 0
}

// Discard removes the temporaries, and empties them for whoever has one open. It
// does nothing after a Commit that succeeded.
func (s *Stage) Discard() {
	for _, f := range s.files {
		_ = f.file.Truncate(0)
		_ = f.file.Close()
		_ = unix.Unlinkat(s.dir.fd(), f.name+tempSuffix, 0)
	}
}

func (d *Dir) sync() error {
	if err := d.file.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync images directory %s: %w", d.path, err)
	}
	return nil
}
