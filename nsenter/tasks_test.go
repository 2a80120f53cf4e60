package nsenter_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestTasks(t *testing.T) {
	ns := nstest.Fresh(t)
	var want []int
	for range 3 {
		p, _ := startReady(t, ns, progWait)
		want = append(want, p.PID())
	}
	startReady(t, nstest.Fresh(t), progWait)
	tasks, _, err := nsenter.Tasks(ns)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, task := range tasks {
		got = append(got, task.PID)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A task outside this user namespace, or of a more privileged process, cannot
// be looked at: the caller has no capability here, and the waiting one has.
func TestTasksCountsUnreadable(t *testing.T) {
	ns := nstest.Fresh(t)
	startReady(t, ns, progWait)
	_, before, err := nsenter.Tasks(ns)
	if err != nil {
		t.Fatal(err)
	}
	var tasks []nsenter.Task
	var unreadable int
	err = withoutPrivilege(t, func() (err error) {
		tasks, unreadable, err = nsenter.Tasks(ns)
		return err
	})
	if err != nil || len(tasks) != 0 || unreadable <= before {
		t.Errorf("got %v, %d unreadable (%d with privileges), %v", tasks, unreadable, before, err)
	}
}

func TestHost(t *testing.T) {
	if ns := nstest.Fresh(t); ns.IsHost() {
		t.Errorf("%s passes for the host's", ns)
	}
	here := current(t)
	link, err := os.Readlink("/proc/1/ns/ipc")
	want := here.Inode() == nsenter.HostInode || err == nil && link == here.Link()
	if here.IsHost() != want {
		t.Errorf("%s: got %t", here, !want)
	}
}

// In a container, what counts as the host's is what its process 1 is in.
func TestHostOfContainer(t *testing.T) {
	nstest.Require(t, "root")
	if _, line := startReady(t, nil, progContainer); line != "false true false false" {
		t.Errorf("got %q, want only process 1's own to be the host's", line)
	}
}

func TestRootStartsInHost(t *testing.T) {
	nstest.Require(t, "host")
	here := current(t)
	if here.Inode() != nsenter.HostInode || !here.IsHost() {
		t.Errorf("%s is not the host's", here)
	}
	if got := fmt.Sprint(here); got != "the host's IPC namespace (ipc:[4026531839])" || here.Link() != threadLink(t) {
		t.Errorf("its name is %q, its link %q", got, here.Link())
	}
}

// A person reads a name, and a program compares a link.
func TestName(t *testing.T) {
	ns := nstest.Fresh(t)
	if ns.String() != ns.Link() {
		t.Errorf("the name is %q, the link %q", ns, ns.Link())
	}
	for _, c := range []struct {
		inode uint64
		host  bool
		want  string
	}{
		{4026532177, false, "ipc:[4026532177]"},
		{4026532177, true, "the IPC namespace of process 1, which counts as the host's (ipc:[4026532177])"},
		{nsenter.HostInode, true, "the host's IPC namespace (ipc:[4026531839])"},
		{nsenter.HostInode, false, "the host's IPC namespace (ipc:[4026531839])"},
	} {
		if got := nsenter.Name(c.inode, c.host); got != c.want {
			t.Errorf("%d, %t: %q, want %q", c.inode, c.host, got, c.want)
		}
	}
}

func TestStartTime(t *testing.T) {
	tail := " S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 99 5\n"
	for _, name := range []string{"cat", "a b", ") Z 1 (", "((", "a\nb", "1 2 3 4 5 6 7 8"} {
		got, err := nsenter.StartTime([]byte("7 (" + name + ")" + tail))
		if err != nil || got != 4242 {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
	for _, stat := range []string{"", "7 cat S 1", "7 (cat) S 1 2", "7 (cat)" + strings.Replace(tail, "4242", "x", 1)} {
		if got, err := nsenter.StartTime([]byte(stat)); err == nil || !strings.HasPrefix(err.Error(), "stat of a process: no start time") {
			t.Errorf("%q: %d, %v", stat, got, err)
		}
	}
}

func BenchmarkTasks(b *testing.B) {
	ns := nstest.Fresh(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := nsenter.Tasks(ns); err != nil {
			b.Fatal(err)
		}
	}
}
