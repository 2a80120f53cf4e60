package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// A killer kills runs of the binary at moments that are spread over its time.
type killer struct {
	*rand.Rand
	kills int
	took  []time.Duration // the last whole runs

	killed, noted int // runs that did not come to their end; of those, with a limit raised
}

func newKiller(t testing.TB, kills int) *killer {
	t.Helper()
	nstest.Require(t, "root")
	if testing.Short() {
		kills /= 10
	}
	return &killer{Rand: rand.New(rand.NewPCG(seed(t), 0)), kills: kills}
}

// whole makes a run that nobody kills, which must succeed, and notes how long it
// takes.
func (k *killer) whole(t testing.TB, args ...string) {
	t.Helper()
	ipcCR(t)
	began := time.Now()
	run(t, args...)
	k.took = append(k.took, time.Since(began))
	k.took = k.took[max(0, len(k.took)-9):]
}

// takes is how long a run takes, as a rule.
func (k *killer) takes() time.Duration {
	return slices.Sorted(slices.Values(k.took))[len(k.took)/2]
}

// kill starts the binary and kills it at the moment number i, and its guard with
// it if so wished.
func (k *killer) kill(t testing.TB, ns *nsenter.Namespace, i int, guardToo bool, args ...string) {
	t.Helper()
	after := time.Duration((float64(i) + k.Float64()) / float64(k.kills) * 1.1 * float64(k.takes()))
	cmd := exec.Command(ipcCR(t), args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	if guardToo {
		unix.Kill(cmd.Process.Pid, unix.SIGSTOP) // or it would start another guard
		for _, pid := range guards(t, cmd.Process.Pid) {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		k.killed++
	}
	if len(notesOf(t, ns)) > 0 {
		k.noted++
	}
}

// sure wants the kills to have met what they are about.
func (k *killer) sure(t testing.TB) {
	t.Helper()
	t.Logf("a run takes %v; %d of %d were killed before their end, %d of them with a limit raised", k.takes(), k.killed, k.kills, k.noted)
	if !testing.Short() && (k.killed < k.kills/4 || k.noted == 0) {
		t.Error("the kills came too late to prove anything")
	}
}

// guards returns the processes of the binary under test but its parent: they are
// guards, or about to become one.
func guards(t testing.TB, parent int) (pids []int) {
	t.Helper()
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		path, err := os.Readlink(exe)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
		if err == nil && path == ipcCR(t) && pid != parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// notesOf returns the guard's notes about the namespace: other programs on this
// machine may have some about theirs.
func notesOf(t testing.TB, ns *nsenter.Namespace) []string {
	t.Helper()
	identity := identityOf(t, ns)
	var found []string
	for _, name := range []string{fmt.Sprint(identity.ID), fmt.Sprint("inode-", identity.Inode)} {
		files, _ := filepath.Glob(fmt.Sprintf("/run/ipc-cr/*-%s.json*", name))
		found = append(found, files...)
	}
	return found
}

// withoutGuard waits until the guard has done its work and is gone. It leaves a
// note if it was to learn of its work just then: that says nothing but whose
// turn it was, and the next run removes it.
func withoutGuard(t testing.TB) {
	t.Helper()
	waitFor(t, "the end of the guard", func() bool { return len(guards(t, 0)) == 0 })
}

func withoutNotes(t testing.TB, ns *nsenter.Namespace) {
	t.Helper()
	if notes := notesOf(t, ns); len(notes) > 0 {
		t.Errorf("left behind: %q", notes)
	}
}

// manyQueues fills a namespace with queues of several users, and then lowers its
// msgmax below what they hold, so that a guard is needed for the copy.
func manyQueues(t testing.TB, ns *nsenter.Namespace, count int) {
	t.Helper()
	inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 1<<16) })
	modes := []int{0o600, 0o666, 0o111, 0o011, 0}
	for i := range count {
		user, key := 1000*(i%3), i
		if i%7 == 0 {
			key = unix.IPC_PRIVATE
		}
		id := makeQueueAs(t, ns, user, key)
		inNamespace(t, ns, func() error {
			return changeQueue(id, func(d *msqid) { d.setInt(atMode, modes[i%len(modes)]) })
		})
		for n := range i % 5 {
			sendAll(t, ns, id, message{int64(1 + n), pattern(100*n + i)})
		}
		if i%100 == 50 {
			inNamespace(t, ns, func() error { return setQbytes(id, 1<<20) })
			sendAll(t, ns, id, message{1, pattern(20000)})
		}
	}
	inNamespace(t, ns, func() error { return setSysctl("kernel/msgmax", 4096) })
}
