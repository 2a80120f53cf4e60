package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

const (
	mib = 1 << 20
	// maxResident bounds ipc-cr, however much is queued.
	maxResident = 32 * mib
)

// Memory does not grow with what is queued.
func TestMemory(t *testing.T) {
	for _, c := range []struct{ queues, messages, size int }{
		{1, 8192, 64 << 10}, {8, 1024, 64 << 10}, {1, 512, mib}, {8, 64, mib},
	} {
		t.Run(fmt.Sprintf("%dx%dx%dKiB", c.queues, c.messages, c.size>>10), func(t *testing.T) {
			nstest.Require(t, "root", "long", "memory") // 512 MiB, several times
			source := nstest.Fresh(t)
			fillMuch(t, source, c.queues, c.messages, c.size)
			carryMuch(t, source)
		})
	}
}

// carryMuch compares what was restored by its image: all of it, without holding
// it in memory.
func carryMuch(t *testing.T, source *nsenter.Namespace) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ipc-cr-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	target := nstest.Fresh(t)
	runWithin(t, maxResident, "checkpoint", "--ns", fdPath(source), "--images-dir", first)
	runWithin(t, maxResident, "restore", "--ns", fdPath(target), "--images-dir", first)
	runWithin(t, maxResident, "checkpoint", "--ns", fdPath(target), "--images-dir", second)
	for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-1.img"} {
		compareStreams(t, filepath.Join(first, name), filepath.Join(second, name))
	}
}

// fillMuch sends messages that are all different.
func fillMuch(t *testing.T, ns *nsenter.Namespace, queues, messages, size int) {
	t.Helper()
	inNamespace(t, ns, func() error {
		return errors.Join(setSysctl("kernel/msgmax", size), setSysctl("kernel/msgmnb", messages*size))
	})
	body := pattern(size - 8)
	for key := range queues {
		id := makeQueue(t, ns, key+1)
		inNamespace(t, ns, func() error {
			for i := range messages {
				if err := send(id, message{int64(1 + i%7), fmt.Sprintf("%04x%04x", key, i) + body}); err != nil {
					return fmt.Errorf("msgsnd: %w", err)
				}
			}
			return nil
		})
	}
}

// runWithin runs the binary, which must succeed with a peak of resident memory
// within so many bytes.
func runWithin(t *testing.T, most int, args ...string) {
	t.Helper()
	peak := peakOf(t, append([]string{ipcCR(t)}, args...)...)
	t.Logf("%s: %.1f MiB resident", args[0], float64(peak)/mib)
	if peak > most {
		t.Errorf("ipc-cr %q: %d MiB resident, want at most %d", args, peak/mib, most/mib)
	}
}

// peakProgram runs a command and tells the peak of its resident memory. The test
// cannot ask itself: a child's peak begins with that of the process that forked
// it (fs/exec.c, exec_mmap), and after large tests that is much.
var peakProgram = nstest.Program("peak", func(args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	fmt.Println(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10)
	if err != nil {
		os.Exit(1)
	}
})

func peakOf(t *testing.T, args ...string) (bytes int) {
	t.Helper()
	p := nstest.Start(t, nil, peakProgram, args...)
	line, err := p.Stdout.ReadString('\n')
	if err = errors.Join(err, p.Wait()); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if bytes, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// The measure itself: what it adds is below the bound, and it sees what is used.
func TestPeak(t *testing.T) {
	nstest.Require(t, "root")
	if peak := peakOf(t, "true"); peak > maxResident*3/4 {
		t.Errorf("true: %d bytes resident", peak)
	}
	hungry := []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", "status=none"}
	if peak := peakOf(t, hungry...); peak < 64*mib || peak > 96*mib {
		t.Errorf("%q: %d bytes resident", hungry, peak)
	}
}

// compareStreams is compareFiles for files that should not be held in memory.
func compareStreams(t *testing.T, want, got string) {
	t.Helper()
	var readers [2]*bufio.Reader
	for i, path := range []string{want, got} {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		readers[i] = bufio.NewReaderSize(file, mib)
	}
	var blocks [2][mib]byte
	for offset := 0; ; offset += mib {
		n, wantEnd := io.ReadFull(readers[0], blocks[0][:])
		m, gotEnd := io.ReadFull(readers[1], blocks[1][:])
		if !bytes.Equal(blocks[0][:n], blocks[1][:m]) {
			t.Fatalf("%s and %s differ at offset %d", want, got, offset+firstDifference(blocks[0][:n], blocks[1][:m]))
		}
		if wantEnd != nil || gotEnd != nil {
			return
		}
	}
}
