package main

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
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// commandProgram is the whole command as a process of its own.
var commandProgram = nstest.Program("ipc-cr", func([]string) { main() })

// jobProgram is the command as a shell's job: the kernel stops none whose process
// group has no parent in its session.
var jobProgram = nstest.Program("ipc-cr-job", func([]string) {
	if err := unix.Setpgid(0, 0); err != nil {
		panic(err)
	}
	main()
})

// idleProgram lives in a namespace until its stdin ends.
var idleProgram = nstest.Program("idle", func([]string) { os.Stdin.Read(make([]byte, 1)) })

// result is what a run of the command left.
type result struct {
	status   int
	out, err string
}

func runCommand(t testing.TB, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), args, &out, &errs)
	return result{status, out.String(), errs.String()}
}

// mustRun wants exit status 0 and returns stdout.
func mustRun(t testing.TB, args ...string) string {
	t.Helper()
	r := runCommand(t, args...)
	if r.status != 0 || r.err != "" {
		t.Fatalf("%q: exit status %d, stderr %q", args, r.status, r.err)
	}
	return r.out
}

// wantError wants an exit status, nothing on stdout, and one line on stderr that
// says all of the words.
func (r result) wantError(t testing.TB, status int, words ...string) {
	t.Helper()
	if r.status != status || r.out != "" {
		t.Errorf("exit status %d, stdout %q, want %d and nothing", r.status, r.out, status)
	}
	line, ended := strings.CutSuffix(r.err, "\n")
	if !ended || strings.Contains(line, "\n") || !strings.HasPrefix(line, "ipc-cr: ") {
		t.Errorf("stderr %q is not one line of ipc-cr", r.err)
	}
	for _, word := range words {
		if !strings.Contains(line, word) {
			t.Errorf("stderr %q does not say %q", r.err, word)
		}
	}
}

// An error is one line, which a log or a script can take, whatever it consists of.
func TestOneLine(t *testing.T) {
	undone := errors.Join(errors.New("the copy fails"), errors.New("and so does its undoing"))
	if got := oneLine(fmt.Errorf("checkpoint: %w", undone)); got != "checkpoint: the copy fails; and so does its undoing" {
		t.Errorf("%q", got)
	}
	runCommand(t, "show", "testdata/two\nlines").wantError(t, 1, "testdata/two; lines", "no such file or directory")
}

// namespace is a fresh one that is pinned by a task, so that the command can be
// told of it.
func namespace(t testing.TB) (ns *nsenter.Namespace, path string) {
	t.Helper()
	ns = nstest.Fresh(t)
	p := nstest.Start(t, ns, idleProgram)
	return ns, filepath.Join("/proc", strconv.Itoa(p.PID()), "ns/ipc")
}

// addQueue makes a queue with so many messages of so many bytes and returns its
// id: the first of a namespace is 0, the next 1.
func addQueue(t testing.TB, ns *nsenter.Namespace, key, messages, size int) (id int) {
	t.Helper()
	err := ns.Run(func() error {
		got, _, errno := unix.Syscall(unix.SYS_MSGGET, uintptr(key), 0o1000|0o600, 0)
		if errno != 0 {
			return errno
		}
		id = int(got)
		buf := make([]byte, 8+size)
		copy(buf[8:], strings.Repeat("message ", size/8+1))
		buf[0], buf[7] = 1, 1 // above 0 in either byte order
		for range messages {
			if _, _, errno := unix.Syscall6(unix.SYS_MSGSND, got, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(size), 0o4000, 0, 0); errno != 0 {
				return errno
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// countMessages is MSG_INFO: msgpool is the number of queues then, msgmap that
// of messages (linux/msg.h).
func countMessages(t testing.TB, ns *nsenter.Namespace) (queues, messages int32) {
	t.Helper()
	const msgInfo = 12
	var info [8]int32
	err := ns.Run(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_MSGCTL, 0, msgInfo, uintptr(unsafe.Pointer(&info))); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return info[0], info[1]
}

// wantNothingLeft wants an images directory without a file, or none.
func wantNothingLeft(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, entry := range entries {
		t.Errorf("%s is left", entry.Name())
	}
}

// eventually polls until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
