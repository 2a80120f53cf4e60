package infront

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// tells is a criu that tells where it is, with what, and waits for the end of its
// stdin.
const tells = `#!/bin/sh
echo "$(readlink /proc/self/ns/ipc) pid $$ args $*"
[ -z "$CRIU_CONFIG_FILE" ] || cat "$CRIU_CONFIG_FILE"
echo end
cat >/dev/null
`

// fakeCRIU puts a script of the name criu on PATH, and a state directory where
// there may be none.
func fakeCRIU(t *testing.T, script string) (path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, Name)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv(ConfigEnv, "")
	return path
}

// started runs the link until the script has told what it tells.
func started(t *testing.T, link *Link, cmd *exec.Cmd) (told []string) {
	t.Helper()
	inFront(link, cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "end"; {
		told = append(told, lines.Text())
	}
	if len(told) == 0 {
		t.Fatalf("nothing was told; said %q", link.Said())
	}
	return told
}

// The process that was started is the one in the namespace, with the same pid,
// arguments and the user's configuration.
func TestBecomesCRIUInTheNamespace(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, tells)
	user := filepath.Join(t.TempDir(), "user.conf")
	if err := os.WriteFile(user, []byte("tcp-close\naction-script /bin/true"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(ConfigEnv, user)
	ns := nstest.Fresh(t)
	pid := strconv.Itoa(startSleeper(t, ns).Process.Pid)
	link := newLink(t)
	cmd := exec.Command(link.Name(), "dump", "-t", pid, "-D", "a b")
	told := started(t, link, cmd)
	want := []string{
		fmt.Sprintf("%s pid %d args dump -t %s -D a b", ns, cmd.Process.Pid, pid),
		"tcp-close", "action-script /bin/true", fmt.Sprintf("action-script %q", filepath.Join(filepath.Dir(link.Name()), HookName)),
	}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q; said %q", told, want, link.Said())
	}
	if beside, err := Beside(cmd.Process.Pid, atoi(t, pid)); err != nil || !beside {
		t.Errorf("beside: %v, %v", beside, err)
	}
	other := startSleeper(t, nstest.Fresh(t)).Process.Pid
	if beside, err := Beside(cmd.Process.Pid, other); err != nil || beside {
		t.Errorf("beside another namespace: %v, %v", beside, err)
	}
	checkConfig(t, cmd)
}

// checkConfig looks at the configuration file while criu lives and afterwards.
func checkConfig(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	dir, err := state.Existing()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	criu, err := state.Lookup(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	Sweep()
	if info, err := os.Stat(dir.Join(beside.Name(criu))); err != nil || info.Mode() != 0o600 {
		t.Errorf("configuration: %v, %v", info, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	Sweep()
	if _, err := os.Stat(dir.Join(beside.Name(criu))); !os.IsNotExist(err) {
		t.Errorf("configuration of a dead criu: %v", err)
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Tasks that happen to share criu's namespace are none of ours.
func TestBesideIsOursAlone(t *testing.T) {
	nstest.Require(t, "userns")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	ns := nstest.Fresh(t)
	criu, task := startSleeper(t, ns).Process.Pid, startSleeper(t, ns).Process.Pid
	if beside, err := Beside(criu, task); err != nil || beside {
		t.Errorf("%v, %v", beside, err)
	}
}

// A worker's request is looked at and left for criu.
func TestWorker(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, tells)
	ns := nstest.Fresh(t)
	home, err := os.Readlink("/proc/self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	pid := int32(startSleeper(t, ns).Process.Pid)
	for kind, want := range map[rpc.CriuReqType]string{
		rpc.CriuReqType_DUMP: ns.Link(), rpc.CriuReqType_RESTORE: home, rpc.CriuReqType_VERSION: home,
	} {
		message, err := proto.Marshal(&rpc.CriuReq{Type: kind.Enum(), Opts: &rpc.CriuOpts{ImagesDirFd: proto.Int32(5), Pid: &pid}})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := packets(t, unix.SOCK_SEQPACKET)
		if err := unix.Sendto(ours, message, 0, nil); err != nil {
			t.Fatal(err)
		}
		worker := os.NewFile(uintptr(theirs), "worker's end")
		link := newLink(t)
		cmd := exec.Command(link.Name(), "swrk", "3")
		cmd.ExtraFiles = []*os.File{worker}
		told := started(t, link, cmd)
		if !strings.HasPrefix(told[0], want+" ") || !strings.HasSuffix(told[0], "args swrk 3") {
			t.Errorf("%v: told %q, want %s", kind, told, want)
		}
		buf := make([]byte, 4096)
		if n, _, err := unix.Recvfrom(int(worker.Fd()), buf, unix.MSG_DONTWAIT); err != nil || !bytes.Equal(buf[:n], message) {
			t.Errorf("%v: %d bytes are left, %v", kind, n, err)
		}
		worker.Close()
	}
}

// Whatever is wrong before criu runs: it runs where it was started, with what it
// was given, and one line says why.
func TestOrdinaryWay(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, tells)
	ns := nstest.Fresh(t)
	pid := strconv.Itoa(startSleeper(t, ns).Process.Pid)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, link *Link)
		args    string
		says    string
	}{
		"no such process":  {args: "dump -t 4194304", says: "process 4194304"},
		"not understood":   {args: "dump --new x -t " + pid, says: `["dump" "x"]`},
		"streamed":         {args: "dump --stream -t " + pid, says: "--stream"},
		"worker of stdin":  {args: "swrk 0", says: "descriptor 0"},
		"worker of none":   {args: "swrk 999", says: "descriptor 999: getsockopt: bad file descriptor"},
		"already there":    {args: "dump -t " + strconv.Itoa(os.Getpid()), says: "namespace"},
		"a device":         {args: "dump -t " + pid, says: "no regular file", prepare: func(t *testing.T, _ *Link) { t.Setenv(ConfigEnv, os.DevNull) }},
		"no action script": {args: "dump -t " + pid, says: "no ipc-cr-criu-hook", prepare: withoutHook},
		"semaphores":       {args: "dump -t " + pid, says: "1 semaphore sets", prepare: func(t *testing.T, _ *Link) { semaphore(t, ns) }},
	} {
		t.Run(name, func(t *testing.T) {
			link := newLink(t)
			if c.prepare != nil {
				c.prepare(t, link)
			}
			home, _ := os.Readlink("/proc/self/ns/ipc")
			cmd := exec.Command(link.Name(), strings.Fields(c.args)...)
			told := started(t, link, cmd)
			if !strings.HasPrefix(told[0], home+" ") || !strings.HasSuffix(told[0], "args "+c.args) || len(told) > 1 {
				t.Errorf("told %q, want %s and %q", told, home, c.args)
			}
			if said := link.Said(); !strings.Contains(said, c.says) || strings.Count(said, "\n") != 1 {
				t.Errorf("said %q, want one line with %q", said, c.says)
			}
			e := logged(t, cmd)
			if e.Action != "dump" || len(e.Done) != 1 || !strings.HasPrefix(e.Done[0], "the dump goes the ordinary way") || !strings.Contains(e.Done[0], c.says) {
				t.Errorf("logged %+v, want %q", e, c.says)
			}
		})
	}
}

// began is when these tests did: pids are used again.
var began = time.Now().Truncate(time.Millisecond)

// logged returns the only entry that a process has made in the log.
func logged(t *testing.T, cmd *exec.Cmd) (entry eventlog.Entry) {
	t.Helper()
	dir, err := state.Existing()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	entries, _, err := eventlog.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries = slices.DeleteFunc(entries, func(e eventlog.Entry) bool { return e.CRIU != cmd.Process.Pid || e.Time.Before(began) })
	if len(entries) != 1 {
		t.Fatalf("logged %+v, want one entry", entries)
	}
	return entries[0]
}

// That there is no criu, or none that runs, is logged: a runtime gives it no stderr.
func TestNoCRIULogged(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, "no program")
	broken := newLink(t)
	for _, c := range []struct {
		path, says string
		status     int
	}{
		{broken.Path(os.Getenv("PATH")), "exec format error", 126},
		{broken.Path(""), "on PATH there is nothing of that name but ipc-cr", 127},
	} {
		cmd := exec.Command(broken.Name(), "check")
		cmd.Env = append(os.Environ(), "PATH="+c.path)
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("exit status %d, %q: want %d, %q", status, out, c.status, c.says)
		}
		if e := logged(t, cmd); e.Action != Name || "ipc-cr: "+e.Error+"\n" != string(out) {
			t.Errorf("logged %+v, said %q", e, out)
		}
	}
}

func withoutHook(t *testing.T, link *Link) {
	t.Helper()
	if err := os.Remove(filepath.Join(filepath.Dir(link.Name()), HookName)); err != nil {
		t.Fatal(err)
	}
}

// What is no dump goes through without a word.
func TestGoesStraightThrough(t *testing.T) {
	fakeCRIU(t, tells)
	for _, args := range []string{"check", "--version", "restore -D d -t 5", "pre-dump -t 1"} {
		link := newLink(t)
		told := started(t, link, exec.Command(link.Name(), strings.Fields(args)...))
		if len(told) != 1 || !strings.HasSuffix(told[0], "args "+args) || link.Said() != "" {
			t.Errorf("%s: told %q, said %q", args, told, link.Said())
		}
	}
}

// A death signal that the parent asked for survives: criu is executed by the
// process's first thread.
func TestKeepsTheDeathSignal(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, tells)
	tasks := nstest.Fresh(t)
	link := newLink(t)
	cmd := inFront(link, exec.Command(link.Name(), "dump", "-t", strconv.Itoa(startSleeper(t, tasks).Process.Pid)))
	ns, err := nsenter.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGUSR1}
	stdin, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	cmd.Stdin = stdin
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Run(func() error { // on a thread that ends, never the first
		if err := cmd.Start(); err != nil {
			return err
		}
		_, err := io.ReadFull(out, make([]byte, 4))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != unix.SIGUSR1 {
			t.Errorf("%v, want SIGUSR1", err)
		}
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("it lives on without the thread that started it")
	}
}

// What a request has named must not keep criu from being executed, nor write to a
// terminal.
func TestOrdinaryEnv(t *testing.T) {
	for text, want := range map[string]string{
		"two\nlines":            "two; lines",
		"/a\x00b\x1b[2J\u202ec": `/a\x00b\x1b[2J\u202ec`,
	} {
		if got := ordinaryEnv(text); got != OrdinaryEnv+"="+want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	const most = 128 << 10 // MAX_ARG_STRLEN of linux/binfmts.h
	if got := ordinaryEnv(strings.Repeat("x", 2*most)); len(got) >= most || !strings.HasSuffix(got, "bytes in all)") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-40:])
	}
}
