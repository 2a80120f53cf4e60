package criuhook_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/warden"
)

// Whoever reads a directory looks for the name that the warden gives.
func TestOneSuffix(t *testing.T) {
	if warden.Suffix != images.AsideSuffix {
		t.Errorf("%q and %q", warden.Suffix, images.AsideSuffix)
	}
}

// A failed restore leaves the namespace and the directory as they were.
func TestConflict(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 1, 2)
	r.must(criuhook.PreDump)
	r.dump(1)
	r.must(criuhook.PostDump)
	r.nextCRIU()
	r.into(nstest.Fresh(t))
	inside(t, r.ns, func(k kernel.Kernel) error { // another at the same key
		_, err := k.Create(0x99, 0o600, kernel.Creator{})
		if err == nil {
			_, err = k.Create(1, 0o600, kernel.Creator{})
		}
		return err
	})
	r.must(criuhook.PreRestore)
	_, err := r.run(criuhook.PostSetupNamespaces)
	if _, conflict := errors.AsType[*plugin.ConflictError](err); !conflict {
		t.Errorf("got %v", err)
	}
	if !r.there("ipcns-msg-1.img") {
		t.Error("the image is not put back")
	}
	if queues, messages := held(t, r.ns); queues != 2 || messages != 0 {
		t.Errorf("%d queues, %d messages", queues, messages)
	}
}

// A directory that cannot be written is left to CRIU.
func TestReadOnly(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 1, 2)
	r.must(criuhook.PreDump)
	r.dump(1)
	r.must(criuhook.PostDump)
	if err := unix.Mount(r.dir, r.dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(r.dir, unix.MNT_DETACH) })
	if err := unix.Mount("", r.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r.nextCRIU()
	if said := r.must(criuhook.PreRestore); !strings.Contains(said, "warning: ") || !strings.Contains(said, "over 8192 bytes") {
		t.Errorf("pre-restore says %q", said)
	}
	if said := r.must(criuhook.PostSetupNamespaces); said != "" {
		t.Errorf("post-setup-namespaces says %q", said)
	}
}

// What had a namespace of its own does not come into the host's.
func TestIntoTheHost(t *testing.T) {
	nstest.Require(t, "host")
	r := newRig(t)
	fill(t, r.ns, 1, 2)
	r.must(criuhook.PreDump)
	r.dump(1)
	r.must(criuhook.PostDump)
	host, err := nsenter.OpenPath("/proc/self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	r.nextCRIU()
	r.into(host)
	r.must(criuhook.PreRestore)
	if _, err := r.run(criuhook.PostSetupNamespaces); err == nil || !strings.Contains(err.Error(), "would come into the host's") {
		t.Errorf("got %v", err)
	}
	if !r.there("ipcns-msg-1.img") {
		t.Error("the image is not put back")
	}
}
