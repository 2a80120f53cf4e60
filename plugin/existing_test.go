package plugin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// A fresh neighbour has made a queue of the image's already. One that nobody has
// used is filled; what differs otherwise is refused, unless it is to be adopted.
func TestExisting(t *testing.T) {
	wanted := aQueue(4, 0x44, "one", "two")
	wanted.QBytes = 20000
	fresh := aQueue(4, 0x44)
	for _, c := range []struct {
		name string
		live queue
		does func(kernel.Kernel) error // to it
		want plugin.Action             // "" is refused
		says string
		by   plugin.Remedy // what decides otherwise
	}{
		{"never used", fresh, nil, plugin.ActionFill, "", ""},
		{"equal", wanted, nil, plugin.ActionKeep, "", ""},
		{"sent to", fresh, sendOne(4, "x"), "", "exists and differs in qbytes", plugin.RemedyExisting},
		{"used up", aQueue(4, 0x44, "x"), takeOne(4), "", "exists and differs in qbytes", plugin.RemedyExisting},
		{"other qbytes", fresh, changeQBytes(4, 12000), "", "exists and differs in qbytes", plugin.RemedyExisting},
		{"another mode", withMode(fresh, 0o660), nil, "", "exists and differs in mode", plugin.RemedyPolicy},
		{"another id", aQueue(5, 0x44), nil, "", "its id or key is taken by queue 5 (key 0x44)", plugin.RemedyPolicy},
		{"another key", aQueue(4, 0x45), nil, "", "its id or key is taken by queue 4 (key 0x45)", plugin.RemedyPolicy},
		{"private", aQueue(4, 0), nil, "", "its id or key is taken by queue 4 (private)", plugin.RemedyPolicy},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, aQueue(4, 0x44, "one", "two"), aQueue(12, 0x12, "beside"))
			setLimits(t, s.source, sysctls{8192, 20000, 32000})
			within(t, s.source, func(k kernel.Kernel) error {
				return k.Set(4, kernel.Attr{UID: wanted.UID, GID: wanted.GID, Mode: wanted.Mode, QBytes: 20000})
			})
			dir := s.checkpoint()
			setLimits(t, s.target, sysctls{8192, 20000, 32000})
			fill(t, s.target, c.live)
			setLimits(t, s.target, defaults)
			if c.does != nil {
				do(t, s, c.does)
			}
			if c.want == "" {
				s.conflicts(c.by, dir, "(key 0x44): "+c.says)
				return
			}
			s.restore(dir, actions{c.want: 1, plugin.ActionMake: 1})
			wantQueues(t, s.target, wanted, aQueue(12, 0x12, "beside"))
			do(t, s, removeIfThere(4))
			s.restore(dir, actions{plugin.ActionLeave: 2}) // it was restored
		})
	}
}

// A neighbour that waits for a message of a queue which is filled gets the first one.
func TestFilledWhileWaitedFor(t *testing.T) {
	s := newStory(t, aQueue(4, 0x44, "one", "two"))
	dir := s.checkpoint()
	fill(t, s.target, aQueue(4, 0x44))
	p := nstest.Start(t, s.target, receiverProgram, "4")
	waitReceiving(t, p.PID())
	s.restore(dir, actions{plugin.ActionFill: 1})
	if line, err := p.Stdout.ReadString('\n'); err != nil || line != "one\n" {
		t.Errorf("the neighbour received %q, %v, want the first message", line, err)
	}
	left := aQueue(4, 0x44, "two")
	left.Messages[0].Type = 2
	wantQueues(t, s.target, left)
}

var receiverProgram = nstest.Program("plugin.receiver", func(args []string) {
	var id int
	fmt.Sscan(args[0], &id)
	buf := make([]byte, 64)
	n := receive(id, buf)
	fmt.Println(string(buf[8 : 8+n]))
})

// waitReceiving waits until a process sleeps in msgrcv(2).
func waitReceiving(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "the neighbour waits for a message", func() bool { return inSyscall(t, pid, unix.SYS_MSGRCV) })
}

// inSyscall reports whether a thread of a process sleeps in a system call
// (proc_pid_syscall(5)).
func inSyscall(t *testing.T, pid int, number int) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(path string) bool {
		text, _ := os.ReadFile(path)
		return strings.HasPrefix(string(text), fmt.Sprint(number)+" ")
	})
}

// When a later step fails, a queue that was filled is as it was made.
func TestFilledIsUndone(t *testing.T) {
	s := newStory(t, aQueue(4, 0x44, "one"))
	dir := s.checkpoint()
	fill(t, s.target, aQueue(4, 0x44))
	_, err := s.try(dir, func(o *plugin.RestoreOptions) {
		o.Kinds = (&meddler{making: func(kernel.Kernel) error { return unix.EIO }}).kinds()
	})
	wantFailure(t, err, unix.EIO.Error())
	wantQueues(t, s.target, aQueue(4, 0x44))
	s.restore(dir, actions{plugin.ActionFill: 1})
}

// All conflicts are named, up to ten.
func TestManyConflicts(t *testing.T) {
	nstest.Require(t, "userns")
	var wanted, live []queue
	for i := range int32(12) {
		wanted = append(wanted, aQueue(i, 0x100+i, "image"))
		live = append(live, aQueue(i, 0x100+i, "x"))
	}
	ns := nstest.Fresh(t)
	fill(t, ns, live...)
	_, err := tryLoad(t, ns, saved(t, wanted...), plugin.Fail)
	wantFailure(t, err, "queue 0 (key 0x100): exists and differs in messages", "queue 9 (key 0x109): ", "and 2 more conflicts", "nothing was changed")
	if err != nil && strings.Contains(err.Error(), "queue 10 ") {
		t.Errorf("%v: more than ten are named", err)
	}
}

// changeQBytes makes a queue one that somebody has set up.
func changeQBytes(id int32, qbytes uint64) func(kernel.Kernel) error {
	return func(k kernel.Kernel) error {
		q, err := k.Stat(id)
		if err != nil {
			return err
		}
		return k.Set(id, kernel.Attr{UID: q.UID, GID: q.GID, Mode: q.Mode, QBytes: qbytes})
	}
}
