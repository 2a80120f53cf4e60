package nsenter_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var (
	progExit         = nstest.Program("exit", func([]string) {})
	progWait         = nstest.Program("wait", waitForStdin)
	progLeaderless   = nstest.Program("leaderless", endFirstThread)
	progOwn          = nstest.Program("own", printOwn)
	progOwnLater     = nstest.Program("own later", printOwnLater)
	progSplit        = nstest.Program("split", threadElsewhere)
	progUnprivileged = nstest.Program("unprivileged", tryAll)
	progContainer    = nstest.Program("container", startContainer)
	progInit         = nstest.Program("init", printHosts)
)

// In init the main goroutine is on the first thread, and endFirstThread needs to
// be. In the tests it must not be held: Run has to keep clear of it by itself.
func init() {
	if os.Getenv("IPC_CR_NSTEST_PROGRAM") == "leaderless" {
		runtime.LockOSThread()
	}
}

func waitForStdin([]string) {
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
}

func endFirstThread([]string) {
	go func() {
		waitForStdin(nil)
		os.Exit(0)
	}()
	unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// threadElsewhere prints the id of a thread that is in a namespace of its own.
func threadElsewhere([]string) {
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(unix.Gettid())
		select {}
	}()
	os.Stdin.Read(make([]byte, 1))
}

// startReady starts a program and returns the first line it prints.
func startReady(t *testing.T, ns *nsenter.Namespace, name string) (*nstest.Process, string) {
	t.Helper()
	p := nstest.Start(t, ns, name)
	line, err := p.Stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p, strings.TrimSpace(line)
}

func current(t *testing.T) *nsenter.Namespace {
	t.Helper()
	return opened(t)(nsenter.Current())
}

// opened checks the result of a function that opens, and closes it at the end.
func opened(t *testing.T) func(*nsenter.Namespace, error) *nsenter.Namespace {
	return func(n *nsenter.Namespace, err error) *nsenter.Namespace {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
}

func mustBeSame(t *testing.T, got, want *nsenter.Namespace) {
	t.Helper()
	if same, err := got.Same(want); err != nil || !same {
		t.Fatalf("got %s, want %s (%v)", got, want, err)
	}
}

// withoutPrivilege runs fn on a thread without capabilities.
func withoutPrivilege(t *testing.T, fn func() error) error {
	t.Helper()
	return current(t).Run(func() error {
		if err := dropPrivilege(); err != nil {
			return err
		}
		return fn()
	})
}

// dropPrivilege takes the thread's capabilities away, and by SECBIT_NOROOT from
// the processes that it starts as root too.
func dropPrivilege() error {
	const secbitNoRoot = 1 // linux/securebits.h
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secbitNoRoot, 0, 0, 0); err != nil {
		return fmt.Errorf("set securebits: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

func poll(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !reached(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func procPath(pid int, rest string) string { return "/proc/" + strconv.Itoa(pid) + "/" + rest }

func uidText(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// statusField returns the rest of the line of /proc/PID/status that starts so.
func statusField(status, name string) string {
	_, rest, _ := strings.Cut(status, "\n"+name)
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

// printOwnLater prints whether its root has a mapping before and after it gets one.
func printOwnLater([]string) {
	n, err := nsenter.Current()
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		o, err := n.Owner()
		if err != nil {
			fmt.Println(err)
			return
		}
		_, root := o.UIDs.In(0)
		fmt.Println(root)
		os.Stdin.Read(make([]byte, 1))
	}
}

// printOwn prints what the owner of the program's own namespace maps.
func printOwn([]string) {
	n, err := nsenter.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	o, err := n.Owner()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, root := o.UIDs.In(0)
	_, overflow := o.UIDs.In(65534)
	_, invalid := o.UIDs.In(4294967295)
	fmt.Println(o.Own, root, overflow, invalid)
}

// startContainer runs printHosts as process 1 of a pid namespace.
func startContainer([]string) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "IPC_CR_NSTEST_PROGRAM="+progInit)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC}
	leash, _, err := os.Pipe() // ends with us
	if err != nil {
		fmt.Println(err)
		return
	}
	cmd.ExtraFiles = []*os.File{leash}
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
	runtime.KeepAlive(leash)
}

// printHosts mounts its own /proc and prints of its own namespace and of another
// whether they are the host's.
func printHosts([]string) {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if err != nil {
		fmt.Println("mount:", err)
		return
	}
	for _, open := range []func() (*nsenter.Namespace, error){nsenter.Current, nsenter.New} {
		n, err := open()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(n.Inode() == nsenter.HostInode, n.IsHost(), " ")
	}
	fmt.Println()
}
