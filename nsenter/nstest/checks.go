package nstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// initialUserLink is what /proc shows of the user namespace the kernel starts
// with: PROC_USER_INIT_INO of include/linux/proc_ns.h.
const initialUserLink = "user:[4026531837]"

func checkRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("the effective uid is %d", uid)
	}
	link, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	if link != initialUserLink {
		return fmt.Errorf("root of %s only", link)
	}
	return makesNamespaces()
}

func checkFUSE() error {
	if err := checkRoot(); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	return unix.Close(fd)
}

func checkCRIU() error {
	if err := checkRoot(); err != nil {
		return err
	}
	out, err := exec.Command("criu", "check").CombinedOutput()
	if err != nil {
		return fmt.Errorf("criu check: %w: %.200q", err, out)
	}
	return nil
}

func rootTool(name string) func() error {
	return sync.OnceValue(func() error {
		if err := checkRoot(); err != nil {
			return err
		}
		_, err := exec.LookPath(name)
		return err
	})
}

// checkCrun knows what crun refuses ("drop all controllers from cgroupv2"):
// cgroup mounts of version 1 beside a hierarchy of version 2 that has controllers.
func checkCrun() error {
	if err := rootTool("crun")(); err != nil {
		return err
	}
	const unified = "/sys/fs/cgroup/unified/cgroup.controllers"
	controllers, err := os.ReadFile(unified)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // all of one version
	}
	if text := strings.TrimSpace(string(controllers)); err == nil && text != "" {
		return fmt.Errorf("crun refuses hybrid cgroup mounts: %s holds %q", unified, text)
	}
	return err
}

// checkHost wants the machine's own namespace, not what counts as the host's in a
// container: other programs are in there, and messages name it.
func checkHost() error {
	if err := checkRoot(); err != nil {
		return err
	}
	n, err := nsenter.Current()
	if err != nil {
		return err
	}
	defer n.Close()
	if n.Inode() != nsenter.HostInode {
		return fmt.Errorf("the tests run in %s, not in the host's IPC namespace", n)
	}
	return nil
}

func checkNamespaceIDs() error {
	n, err := nsenter.New()
	if err != nil {
		return err
	}
	defer n.Close()
	id, err := n.Identity()
	if err == nil && id.ID == 0 {
		err = errors.New("the kernel gives namespaces no ids: Linux 6.18 and later do")
	}
	return err
}

func checkIDs() error {
	for _, id := range []uint32{1000, 100001} {
		if mapped(id) && mapped(id+1) {
			return nil
		}
	}
	return errors.New("no other user is mapped into the user namespace")
}

func checkCC() error {
	_, err := exec.LookPath("cc")
	return err
}

// memoryNeeded is for 512 MiB twice in queues and twice in files, and for all
// else that runs.
const memoryNeeded = 4 << 30

func checkMemory() error {
	if err := checkRoot(); err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err != nil {
			continue
		}
		if kib < memoryNeeded>>10 {
			return fmt.Errorf("%d MiB are available, of %d MiB", kib>>10, memoryNeeded>>20)
		}
		return nil
	}
	return errors.New("/proc/meminfo: no MemAvailable")
}

func checkLong() error {
	if testing.Short() {
		return errors.New("the run is a short one")
	}
	return nil
}
