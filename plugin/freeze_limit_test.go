package plugin_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

// limited checkpoints or restores with a short limit, in a namespace that holds a
// queue.
func limited(t *testing.T, ns *nsenter.Namespace, restore bool, m *meddler, limit time.Duration) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	fill(t, ns, aQueue(1, 0x11, "one"))
	was := stateOf(t, ns)
	kinds := []plugin.Kind{m, msgq.Kind{}, ipcvar.Kind{}}
	var err error
	if restore {
		_, err = plugin.Restore(t.Context(), plugin.RestoreOptions{Kinds: kinds, Namespace: ns, Dir: saved(t, aQueue(2, 0x22, "two")), Number: images.Auto}.WithFrozenLimit(limit))
	} else {
		_, err = plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Freeze: true}.WithFrozenLimit(limit))
	}
	wantSame(t, ns, was)
	wantNobodyStopped(t, ns)
	wantNoCheckpoint(t, dir)
	return err
}

// A step that does not end freezes nobody for longer than the limit, whatever it waits
// for: the tasks run again, and nothing is made or written.
func TestFrozenLimit(t *testing.T) {
	nstest.Require(t, "userns")
	for name, hang := range map[string]func(m *meddler, hangs func(kernel.Kernel) error){
		"copy":  func(m *meddler, hangs func(kernel.Kernel) error) { m.copying = hangs },
		"make":  func(m *meddler, hangs func(kernel.Kernel) error) { m.making = hangs },
		"check": func(m *meddler, hangs func(kernel.Kernel) error) { m.checking = hangs },
	} {
		t.Run(name, func(t *testing.T) {
			limit := 150 * time.Millisecond
			nstest.Try(t, func() error {
				limit *= 2
				ns := nstest.Fresh(t)
				p, m, came := inhabit(t, ns), &meddler{}, false
				hang(m, func(kernel.Kernel) error {
					came = true
					return awaitUntraced(t, p.PID())
				})
				err := limited(t, ns, name != "copy", m, limit)
				wantFailure(t, err, ns.String())
				if !came {
					return fmt.Errorf("the limit was over before the step that hangs: %w", err)
				}
				wantFailure(t, err, fmt.Sprintf("the tasks were frozen for %v, which is the limit: the ", limit))
				return nil
			})
		})
	}
}

// A task that is traced and has not stopped, as in vfork, counts as well: the signals
// that end a process whose limit is over are on their way.
func TestFrozenLimitWithoutStopped(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	p := nstest.Start(t, ns, vforkAsideProgram)
	if line, err := p.Stdout.ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	m := &meddler{copying: func(kernel.Kernel) error {
		if tracerOf(t, p.PID()) == 0 {
			t.Error("it is not traced")
		}
		return awaitUntraced(t, p.PID())
	}}
	const limit = 3 * time.Second // more than a task is waited for
	_, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
		Kinds: []plugin.Kind{m, msgq.Kind{}, ipcvar.Kind{}}, Namespace: ns, Dir: filepath.Join(t.TempDir(), "images"), Number: 1, Freeze: true,
	}.WithFrozenLimit(limit))
	wantFailure(t, err, "the tasks were frozen for 3s, which is the limit: the ")
}

// vforkAsideProgram is one thread that matters, which waits in vfork for a child that
// is in another namespace.
var vforkAsideProgram = nstest.Program("plugin.vforkaside", func([]string) {
	runtime.LockOSThread()
	fmt.Println("waits")
	vforkAside()
	select {}
})

//go:nosplit
//go:norace
func vforkAside() {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|unix.CLONE_NEWIPC|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return
	}
	unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	for {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func awaitUntraced(t *testing.T, pid int) error {
	for deadline := time.Now().Add(20 * time.Second); tracerOf(t, pid) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("it freezes them for longer than the limit")
		}
	}
	return nil
}

// tracerOf returns the thread that traces a process, 0 for none.
func tracerOf(t *testing.T, pid int) (tracer int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nTracerPid:\t")
	if _, err := fmt.Sscan(after, &tracer); err != nil {
		t.Fatal(err)
	}
	return tracer
}
