package criuhook_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// trace makes this process the tracer of a thread, which runs on, until the end of the
// test.
func trace(t *testing.T, tid int) {
	t.Helper()
	traced, over := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // it is the tracer
		traced <- unix.PtraceSeize(tid)
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond): // lets it go on when a signal stops it
				var status unix.WaitStatus
				if n, _ := unix.Wait4(tid, &status, unix.WALL|unix.WNOHANG, nil); n > 0 && status.Stopped() {
					_ = unix.PtraceCont(tid, 0)
				}
			}
		}
	}()
	if err := <-traced; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(over) })
}

// stoppedByCRIU is a script for a perl that is called criu: it stops all threads of a
// process for a second and a half, as a CRIU that is about to let its container go.
const stoppedByCRIU = `my ($call, $pid) = @ARGV;
for (glob "/proc/$pid/task/*") {
	m{(\d+)$};
	for my $request (0x4206, 0x4207) { # PTRACE_SEIZE, PTRACE_INTERRUPT
		syscall($call, $request, $1 + 0, 0, 0) == 0 or die "ptrace: $!";
	}
}
$| = 1;
print "stopped\n";
select(undef, undef, undef, 1.5);
`

// A neighbour that another CRIU has stopped is thawed soon after that one's turn is over,
// and held then; on a busy machine it takes more than a moment.
func TestNeighbourOfAnotherCRIU(t *testing.T) {
	r := newRig(t)
	neighbour := nstest.Start(t, r.ns, idle)
	fill(t, r.ns, 1, 2)
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(perl)
	criu := filepath.Join(t.TempDir(), "criu")
	if err := errors.Join(err, os.WriteFile(criu, text, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(criu, "-e", stoppedByCRIU, strconv.Itoa(unix.SYS_PTRACE), strconv.Itoa(neighbour.PID()))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	said := r.must(criuhook.PreDump)
	if !strings.Contains(said, "of neighbours stopped") || strings.Contains(said, "not stopped") {
		t.Errorf("pre-dump says %q", said)
	}
}

// A neighbour that runs under a tracer cannot be stopped. What it leaves alone while
// CRIU copies is copied; a message that it passes around fails the dump, though
// the queue is as it was.
func TestTracedNeighbour(t *testing.T) {
	for _, uses := range []bool{false, true} {
		r := newRig(t)
		neighbour := nstest.Start(t, r.ns, idle)
		trace(t, neighbour.PID())
		fill(t, r.ns, 1, 2)
		anotherSecond(t)
		if said := r.must(criuhook.PreDump); !strings.Contains(said, "1 task of neighbours not stopped") && !strings.Contains(said, "tasks of neighbours not stopped") {
			t.Errorf("pre-dump says %q", said)
		}
		r.dump(1)
		if uses {
			inside(t, r.ns, passAround)
		}
		said, err := r.run(criuhook.PostDump)
		if uses && (err == nil || !strings.Contains(err.Error(), "queue 0 (key 0x1): was in use while CRIU copied it")) {
			t.Errorf("it was used: %v", err)
		}
		if !uses && (err != nil || !strings.Contains(said, "1 queue, 2 messages verified")) {
			t.Errorf("it was not used: %q, %v", said, err)
		}
	}
}

// passAround sends what it receives, until all messages were.
func passAround(k kernel.Kernel) error {
	for range 2 {
		var b [64]byte
		if _, _, errno := unix.Syscall6(unix.SYS_MSGRCV, 0, uintptr(unsafe.Pointer(&b)), uintptr(len(b)-kernel.HeaderLen), 0, 0, 0); errno != 0 {
			return errno
		}
		if err := k.Send(0, message(0)); err != nil {
			return err
		}
	}
	return nil
}

// passingThread FILE has a thread whose id it says, and which passes a message around
// when the file is there, and ends.
var passingThread = nstest.Program("criuhook.passing", func(args []string) {
	started := make(chan bool)
	for range 2 { // one of them is not on the first thread, whose end would not be seen
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				started <- false
				select {}
			}
			fmt.Println(unix.Gettid())
			started <- true
			for unix.Access(args[0], unix.F_OK) != nil {
				nap := unix.Timespec{Nsec: 1e6}
				_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
			}
			var b [64]byte
			n, _, _ := unix.RawSyscall6(unix.SYS_MSGRCV, 0, uintptr(unsafe.Pointer(&b)), uintptr(len(b)-kernel.HeaderLen), 0, 0, 0)
			_, _, _ = unix.RawSyscall6(unix.SYS_MSGSND, 0, uintptr(unsafe.Pointer(&b)), n, 0, 0, 0)
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}()
		if <-started {
			break
		}
	}
	os.Stdin.Read(make([]byte, 1))
})

// A thread that could not be stopped, and has ended since, leaves its process behind,
// all of which is stopped. What it did counts all the same.
func TestTracedThreadThatEnds(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 1, 2)
	flag := filepath.Join(t.TempDir(), "go")
	p := nstest.Start(t, r.ns, passingThread, flag)
	line, err := p.Stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	tid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	trace(t, tid)
	anotherSecond(t)
	r.must(criuhook.PreDump)
	r.dump(1)
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the thread's end", func() bool {
		return errors.Is(unix.Access(fmt.Sprintf("/proc/%d/task/%d", p.PID(), tid), unix.F_OK), unix.ENOENT)
	})
	_, err = r.run(criuhook.PostDump)
	if want := "queue 0 (key 0x1): was in use while CRIU copied it"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
