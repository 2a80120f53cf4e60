package criuhook_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// Neighbours that came after pre-dump had looked were not stopped: what they use
// may be torn, whether it shows or not.
func TestUnheld(t *testing.T) {
	r := newRig(t)
	r.must(criuhook.PreDump) // nothing to hold
	nstest.Start(t, r.ns, idle)
	fill(t, r.ns, 1, 2)
	r.dump(1)
	_, err := r.run(criuhook.PostDump)
	if want := "queue 0 (key 0x1): was in use while CRIU copied it, and its users were not stopped"; !errors.Is(err, plugin.ErrDiffers) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want ErrDiffers and %s", err, want)
	}
}

// Where neighbours may have been born too fast to be looked at, or somebody came after the
// neighbours were held, it is the same: a use that leaves no other trace than its time
// fails the dump. Of those who have left, the second in which all were held tells nothing.
func TestUnseen(t *testing.T) {
	for _, unseen := range []bool{false, true} {
		r := newRig(t)
		nstest.Start(t, r.ns, idle)
		fill(t, r.ns, 1, 2)
		r.must(criuhook.PreDump)
		if unseen {
			r.forge(criuhook.PreDump, `"held":true`, `"held":true,"in_doubt":true`)
		} else {
			anotherSecond(t)
		}
		inside(t, r.ns, func(k kernel.Kernel) error { return k.Send(0, message(0)) })
		r.dump(1)
		_, err := r.run(criuhook.PostDump)
		if want := "queue 0 (key 0x1): was in use while CRIU copied it, and its users were not stopped"; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("unseen %t: %v, want %s", unseen, err, want)
		}
	}
}

// anotherSecond waits until the clock by which objects are stamped shows one.
func anotherSecond(t *testing.T) {
	t.Helper()
	stamp := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		return now.Sec
	}
	before := stamp()
	await(t, "another second", func() bool { return stamp() > before })
}
