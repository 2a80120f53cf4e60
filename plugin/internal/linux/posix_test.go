package linux

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

func counted(t *testing.T, ns *nsenter.Namespace) (n int) {
	t.Helper()
	run(t, NewSpace(ns, nil), func(k kernel.Kernel) {
		var err error
		if n, err = k.POSIXQueues(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// Each name is one, however long it is, and whether anybody has the queue open or
// not. Without a name it is not seen.
func TestPOSIXQueues(t *testing.T) {
	ns, other := nstest.Fresh(t), nstest.Fresh(t)
	for i, name := range []string{"a", strings.Repeat("long", 63), "with \xff and\nnewline"} {
		nstest.POSIXQueue(t, ns, name, false)
		if n := counted(t, ns); n != i+1 {
			t.Errorf("%d, want %d", n, i+1)
		}
	}
	nstest.POSIXQueue(t, ns, "unlinked", true)
	if n := counted(t, ns); n != 3 {
		t.Errorf("beside one that is unlinked: %d, want 3", n)
	}
	if n := counted(t, other); n != 0 {
		t.Errorf("in another namespace: %d", n)
	}
}

// Nobody can see that they were counted: no time changes, of the queues nor of their
// directory, and nothing is mounted.
func TestPOSIXQueuesChangesNothing(t *testing.T) {
	nstest.Require(t, "root")
	ns := nstest.Fresh(t)
	queue := nstest.POSIXQueue(t, ns, "a", false)
	err := ns.Run(func() error {
		context, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(context)
		if err := unix.FsconfigCreate(context); err != nil {
			return err
		}
		root, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(root)
		before := times(t, root, queue)
		// The file system stamps whole seconds.
		for began := time.Now().Unix(); time.Now().Unix() < began+2; time.Sleep(10 * time.Millisecond) {
			if n := counted(t, ns); n != 1 {
				return fmt.Errorf("%d queues, want 1", n)
			}
		}
		if after := times(t, root, queue); after != before {
			t.Errorf("times %v, were %v", after, before)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func times(t *testing.T, fds ...int) (all [2][3]unix.Timespec) {
	t.Helper()
	for i, fd := range fds {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		all[i] = [3]unix.Timespec{st.Atim, st.Mtim, st.Ctim}
	}
	return all
}

// countProgram counts the queues of its own namespace, where it has made one, and
// waits.
var countProgram = nstest.Program("linux.count", func([]string) {
	ns, err := nsenter.Current()
	if err != nil {
		panic(err)
	}
	if err := ns.Run(makeOne); err != nil {
		panic(err)
	}
	err = NewSpace(ns, nil).Run(func(k kernel.Kernel) error {
		n, err := k.POSIXQueues()
		fmt.Println(n, err)
		return nil
	})
	if err != nil {
		panic(err)
	}
	os.Stdin.Read(make([]byte, 1))
})

func makeOne() error {
	name, attr := [2]byte{'a'}, [8]int64{0, 1, 16} // struct mq_attr
	_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name)), unix.O_CREAT|unix.O_RDWR, 0o600,
		uintptr(unsafe.Pointer(&attr)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// In a user namespace nobody may mount in the mount namespace of those outside: they
// are counted all the same, and from outside.
func TestPOSIXQueuesInAUserNamespace(t *testing.T) {
	p := nstest.StartInUserNS(t, nil, countProgram)
	line, err := p.Stdout.ReadString('\n')
	if line != "1 <nil>\n" {
		t.Errorf("%q, %v, want 1", line, err)
	}
	ns, err := nsenter.OpenPID(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if n := counted(t, ns); n != 1 {
		t.Errorf("from outside: %d, want 1", n)
	}
}

// Where they cannot be counted that is an error, and not none.
func TestPOSIXQueuesWithoutPrivilege(t *testing.T) {
	ns := nstest.Fresh(t)
	nstest.POSIXQueue(t, ns, "a", false)
	run(t, NewSpace(ns, nil), func(k kernel.Kernel) {
		drop(t, unix.CAP_SYS_ADMIN)
		if n, err := k.POSIXQueues(); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Errorf("%d, %v, want EPERM and the capability", n, err)
		}
	})
}

func BenchmarkPOSIXQueues(b *testing.B) {
	err := NewSpace(nstest.Fresh(b), nil).Run(func(k kernel.Kernel) error {
		for b.Loop() {
			if _, err := k.POSIXQueues(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
