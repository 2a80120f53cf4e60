package freeze

import (
	"os"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A process is stopped by its tracer alone, with all of its threads, and as long as it
// lives.
func TestStoppedBy(t *testing.T) {
	ns, c := nstest.Fresh(t), newCounters(t)
	p := nstest.Start(t, ns, busyProgram, c.Path, "3", "0")
	c.waitMoved(t, 3)
	is := func(when string, want bool, tracers ...int) {
		t.Helper()
		if stopped, err := StoppedBy(p.PID(), tracers...); err != nil || stopped != want {
			t.Errorf("%s: %t, %v", when, stopped, err)
		}
	}
	is("running", false, os.Getpid())
	s, err := All(t.Context(), ns.Inode(), Options{Timeout: deadline})
	if err != nil {
		t.Fatal(err)
	}
	is("stopped", true, 1, os.Getpid())
	is("by another", false, 1)
	is("by nobody", false)
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	c.waitMoved(t, 3)
	is("let go", false, os.Getpid())
	p.Kill()
	is("ended", false, os.Getpid())
}
