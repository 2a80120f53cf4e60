package state

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// OldSuffix ends the name of what an appended file was before its last turn.
const OldSuffix = ".1"

// spare is by how much, in bytes, an appended file may be over its limit while
// another process is turning it.
const spare = 64 << 10

// tries is how often a file that is turned at the same moment is opened anew.
const tries = 5

// Append adds a record to a file, which is made if need be, in one write(2):
// records of several processes do not mix. A file that would come to more than
// limit bytes is turned first: it gets OldSuffix, in the place of the one that had
// it, and an empty one is begun. So the two never take more than twice the limit.
//
// It waits for nobody: where another process is turning the file and does not get
// on (it is stopped), records are added beyond the limit for a while, then it is
// EFBIG. A writer that is killed, and a file system that is full, leave a part of a
// record. EFBIG too if the record alone is larger than the limit; errors otherwise as
// of Read.
func (d *Dir) Append(name string, record []byte, limit int64) error {
	if int64(len(record)) > limit {
		return fmt.Errorf("append to %s: %d bytes are more than %d: %w", d.Join(name), len(record), limit, unix.EFBIG)
	}
	for try := 1; ; try++ {
		file, err := d.openFile(name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT)
		if err != nil {
			return err
		}
		more, err := d.appendTo(file, name, record, limit, try == tries)
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("append to %s: %w", d.Join(name), err)
		}
		if !more {
			return nil
		}
	}
}

// appendTo adds a record to an open file, or turns the file and wants to be called
// with the next one. On the last try it adds to a file that it could not turn.
func (d *Dir) appendTo(file *os.File, name string, record []byte, limit int64, last bool) (again bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return false, err
	}
	size := st.Size + int64(len(record))
	switch {
	case size <= limit:
	case !last:
		return true, d.turn(file, name)
	case size > limit+spare:
		return false, fmt.Errorf("%d bytes, and another process does not make room: %w", st.Size, unix.EFBIG)
	}
	n, err := unix.Write(int(file.Fd()), record)
	if err == nil && n < len(record) {
		err = io.ErrShortWrite
	}
	return false, err
}

// turn gives a full file its old name, unless another process does. Of two that
// found it full the second must not turn the next one, which is empty.
func (d *Dir) turn(file *os.File, name string) error {
	err := d.lock(file, name)
	if errors.Is(err, ErrBusy) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Renameat(d.fd, name, d.fd, name+OldSuffix)
}

// Appended returns the records that were appended to a file and are still there,
// the oldest first: what was in the file before its last turn, then what is in it
// now. Nothing if there is no such file. The last record may be incomplete, because it
// is being written. limit is that of Append; errors as of Read.
func (d *Dir) Appended(name string, limit int64) ([]byte, error) {
	for try := 1; ; try++ {
		old, now, err := d.openBoth(name)
		if err != nil {
			return nil, err
		}
		turned, err := d.turned(old, now, name)
		var content []byte
		if err == nil && (!turned || try == tries) {
			content, err = d.bothContents(old, now, name, int(limit)+spare)
			turned = false
		}
		closeAll(old, now)
		if err != nil || !turned {
			return content, err
		}
	}
}

// openBoth opens the old file and the present one, nil where there is none.
func (d *Dir) openBoth(name string) (old, now *os.File, err error) {
	if now, err = d.open(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, err
	}
	if old, err = d.open(name + OldSuffix); err != nil && !errors.Is(err, unix.ENOENT) {
		closeAll(now)
		return nil, nil, err
	}
	return old, now, nil
}

// turned reports whether the file was turned while the two were opened, so that
// they are the same, or one between them is missing.
func (d *Dir) turned(old, now *os.File, name string) (bool, error) {
	var named unix.Stat_t
	err := unix.Fstatat(d.fd, name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if now == nil || errors.Is(err, unix.ENOENT) {
		return (now == nil) != errors.Is(err, unix.ENOENT), nil
	}
	var opened, before unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(now.Fd()), &opened)
	}
	if err == nil && old != nil {
		err = unix.Fstat(int(old.Fd()), &before)
	}
	if err != nil {
		return false, fmt.Errorf("stat %s: %w", d.Join(name), err)
	}
	return opened.Ino != named.Ino || opened.Ino == before.Ino, nil
}

func (d *Dir) bothContents(old, now *os.File, name string, limit int) ([]byte, error) {
	var all []byte
	for _, file := range []*os.File{old, now} {
		if file == nil {
			continue
		}
		content, err := d.content(file, name, limit)
		if err != nil {
			return nil, err
		}
		all = append(all, content...)
	}
	return all, nil
}

func closeAll(files ...*os.File) {
	for _, file := range files {
		if file != nil {
			_ = file.Close()
		}
	}
}
