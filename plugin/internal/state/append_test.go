package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func appended(t *testing.T, dir *Dir, limit int64) string {
	t.Helper()
	content, err := dir.Appended("log", limit)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// The newest records are kept, in order, in two files of bounded size.
func TestAppend(t *testing.T) {
	dir := openTemp(t)
	if got := appended(t, dir, 100); got != "" {
		t.Errorf("%q is in a log that is not there", got)
	}
	const limit = 100
	all := ""
	for i := range 40 {
		record := fmt.Sprintf("record %d\n", i)
		if err := dir.Append("log", []byte(record), limit); err != nil {
			t.Fatal(err)
		}
		all += record
		got := appended(t, dir, limit)
		if !strings.HasSuffix(all, got) || len(got) < min(len(all), limit-len(record)) {
			t.Fatalf("after record %d: %q", i, got)
		}
		names, err := dir.Names()
		if err != nil || len(names) > 2 {
			t.Fatalf("files %q, %v", names, err)
		}
		for _, name := range names {
			info, err := os.Lstat(dir.Join(name))
			if err != nil || info.Size() > limit || info.Mode() != 0o600 {
				t.Fatalf("%s after record %d: %v, %v", name, i, info, err)
			}
		}
	}
}

// A record can be as large as the limit; one that is larger costs nothing of what is
// there.
func TestAppendLarge(t *testing.T) {
	dir := openTemp(t)
	want := ""
	for _, size := range []int{7, 20, 21, 20} {
		record := strings.Repeat(string(rune('a'+len(want)%26)), size)
		err := dir.Append("log", []byte(record), 20)
		if size <= 20 {
			want += record
		}
		if (err != nil) != (size > 20) || err != nil && !errors.Is(err, unix.EFBIG) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if got := appended(t, dir, 20); got != want[7:] {
		t.Errorf("%q, want %q", got, want[7:])
	}
}

var appendProgram = nstest.Program("state.append", func(args []string) {
	dir, err := Open(args[0])
	if err != nil {
		panic(err)
	}
	times, _ := strconv.Atoi(args[2])
	limit, _ := strconv.ParseInt(args[3], 10, 64)
	for i := range times {
		record := fmt.Sprintf("%s %d %s\n", args[1], i, strings.Repeat(args[1], 500))
		err := dir.Append("log", []byte(record), limit)
		// Nobody waits for one that is to make room and does not come to run.
		for late := time.Now().Add(time.Minute); errors.Is(err, unix.EFBIG) && time.Now().Before(late); {
			time.Sleep(time.Millisecond)
			err = dir.Append("log", []byte(record), limit)
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}
})

// Records of several processes do not mix, whoever turns the file meanwhile, and
// none is lost before its time.
func TestAppendersTogether(t *testing.T) {
	const writers, times = 4, 400
	for _, limit := range []int64{1 << 30, 20 << 10} {
		dir := openTemp(t)
		var programs []*nstest.Process
		for i := range writers {
			programs = append(programs, nstest.Start(t, nil, appendProgram, dir.Path(), string(rune('a'+i)), strconv.Itoa(times), fmt.Sprint(limit)))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, p := range programs {
				if out, err := p.Stdout.ReadString('\n'); err == nil {
					t.Error(out)
				}
				if err := p.Wait(); err != nil {
					t.Error(err)
				}
			}
		}()
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			default:
			}
			content := appended(t, dir, limit)
			if !ended {
				content = content[:strings.LastIndexByte(content, '\n')+1] // the last one may be under way
			}
			records := whole(t, content)
			switch {
			case !ended:
			case limit > 1<<20 && records != writers*times:
				t.Errorf("%d records of %d", records, writers*times)
			case limit < 1<<20 && records < int(limit)/600:
				t.Errorf("%d records: less than one file", records)
			}
		}
	}
}

// whole counts records, which must be whole and each writer's in order.
func whole(t *testing.T, content string) (records int) {
	t.Helper()
	next := map[string]int{}
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != strings.Repeat(fields[0], 500) {
			t.Fatalf("mixed: %.80q", line)
		}
		i, _ := strconv.Atoi(fields[1])
		if i < next[fields[0]] {
			t.Fatalf("%s: %d after %d", fields[0], i, next[fields[0]])
		}
		next[fields[0]] = i + 1
		records++
	}
	return records
}

// Of two processes that find the file full, the second does not turn the next one.
func TestTurnOfATurnedFile(t *testing.T) {
	dir := openTemp(t)
	if err := dir.Append("log", []byte("old\n"), 5); err != nil {
		t.Fatal(err)
	}
	full, err := dir.open("log")
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := dir.Append("log", []byte("new\n"), 5); err != nil {
		t.Fatal(err)
	}
	if err := dir.turn(full, "log"); err != nil {
		t.Fatal(err)
	}
	if got := appended(t, dir, 5); got != "old\nnew\n" {
		t.Errorf("%q is left", got)
	}
}

// A reader who opens the file right before it is turned, and the old one right
// after, notices.
func TestTurnedWhileRead(t *testing.T) {
	dir := openTemp(t)
	for _, record := range []string{"one\n", "two\n"} {
		if err := dir.Append("log", []byte(record), 5); err != nil {
			t.Fatal(err)
		}
	}
	old, now, err := dir.openBoth("log")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(old, now)
	if turned, err := dir.turned(old, now, "log"); turned || err != nil {
		t.Errorf("turned %t, %v", turned, err)
	}
	if err := dir.Append("log", []byte("3\n"), 5); err != nil {
		t.Fatal(err)
	}
	after, err := dir.open("log" + OldSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	for what, of := range map[string]*os.File{"the one before": old, "the one that was read": after, "none": nil} {
		if turned, err := dir.turned(of, now, "log"); !turned || err != nil {
			t.Errorf("old file %s: turned %t, %v", what, turned, err)
		}
	}
	if turned, err := dir.turned(after, nil, "log"); !turned || err != nil {
		t.Errorf("no file before: turned %t, %v", turned, err)
	}
}

// Where another process is stopped while it turns the file nobody waits for it, and
// the file stays bounded.
func TestAppendWaitsForNobody(t *testing.T) {
	dir := openTemp(t)
	const limit = 10 << 10
	record := bytes.Repeat([]byte("x"), limit)
	if err := dir.Append("log", record, limit); err != nil {
		t.Fatal(err)
	}
	stopped, err := dir.Claim("log")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for err == nil {
		err = dir.Append("log", record, limit)
	}
	if took := time.Since(began); took > 10*time.Second || !errors.Is(err, unix.EFBIG) {
		t.Errorf("%v after %v", err, took)
	}
	info, err := os.Stat(dir.Join("log"))
	if err != nil || info.Size() <= limit || info.Size() > limit+spare {
		t.Errorf("%v, %v: want up to %d bytes more than the limit", info, err, spare)
	}
	stopped.Release()
	if err := dir.Append("log", []byte("y"), limit); err != nil {
		t.Fatal(err)
	}
	if got := appended(t, dir, limit); !strings.HasSuffix(got, "xy") || len(got) != int(info.Size())+1 {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-2:])
	}
}

func TestAppendRefusesPlantedFiles(t *testing.T) {
	nstest.Require(t, "root")
	target := filepath.Join(t.TempDir(), "target")
	for name, plant := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(target, path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"another user's": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Chown(path, noRoot, noRoot))
		},
	} {
		dir := openTemp(t)
		if err := plant(dir.Join("log")); err != nil {
			t.Fatal(err)
		}
		if err := dir.Append("log", []byte("x"), 100); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: append: %v", name, err)
		}
		if _, err := dir.Appended("log", 100); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: read: %v", name, err)
		}
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("the link was followed")
	}
}

// A directory without room for another file says so beforehand, and only then.
func TestMayWrite(t *testing.T) {
	nstest.Require(t, "root")
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := dir.MayWrite(); err != nil {
		t.Error(err)
	}
	for err = nil; err == nil; {
		err = dir.Append("log", make([]byte, 4096), 1<<20)
	}
	if err := dir.MayWrite(); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want ENOSPC and %s", err, path)
	}
	if names, err := dir.Names(); err != nil || len(names) != 1 {
		t.Errorf("left %q, %v", names, err)
	}
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=16k"); err != nil {
		t.Fatal(err)
	}
	if err := dir.MayWrite(); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v, want EROFS", err)
	}
}

// A file system that is full in the middle of a record is an error.
func TestAppendToAFullFileSystem(t *testing.T) {
	nstest.Require(t, "root")
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	done := 0
	var failed error
	for failed == nil {
		if failed = dir.Append("log", bytes.Repeat([]byte("x"), 3000), 1<<20); failed == nil {
			done += 3000
		}
	}
	if info, err := os.Stat(dir.Join("log")); err != nil || info.Size() < int64(done) || !strings.Contains(failed.Error(), dir.Join("log")) {
		t.Errorf("%v, %v: %d bytes were written, then %v", info, err, done, failed)
	}
}
