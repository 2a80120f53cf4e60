package nstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireEnv holds, separated by commas, the requirements that the machine is
// known to meet: a test that would be skipped for one of them fails instead.
const RequireEnv = "IPC_CR_REQUIRE"

// requirements is the closed list. A check returns why the machine does not
// meet it; each is made once a process.
var requirements = map[string]func() error{
	"userns": makesNamespaces,
	"root":   sync.OnceValue(checkRoot),
	"criu":   sync.OnceValue(checkCRIU),
	"runc":   rootTool("runc"),
	"crun":   sync.OnceValue(checkCrun),
	"podman": rootTool("podman"),
	"bpf":    sync.OnceValue(checkBPF),
	"fuse":   sync.OnceValue(checkFUSE),
}

// Require skips the test, with the reason, unless the machine meets all that is
// named:
//
//	userns  this process can make IPC namespaces, as root or in a user namespace
//	root    it is root in the initial user namespace, with CAP_SYS_ADMIN
//	criu    root, and `criu check` passes
//	runc, podman  root, and the program is on PATH
//	crun    the same, and crun runs on these cgroup mounts
//	bpf     it can load a BPF program of type syscall
//	fuse    root, and it can mount a FUSE file system
//
// The test fails instead if the environment variable IPC_CR_REQUIRE names the
// missing one, or if what or the variable holds an unknown word.
func Require(t testing.TB, what ...string) {
	t.Helper()
	demanded := demandedWords(t)
	for _, word := range what {
		check, known := requirements[word]
		if !known {
			t.Fatalf("nstest: unknown requirement %q", word)
		}
		err := check()
		if err == nil {
			continue
		}
		if slices.Contains(demanded, word) {
			t.Fatalf("%s is required by %s: %v", word, RequireEnv, err)
		}
		t.Skipf("needs %s: %v", word, err)
	}
}

// demandedWords refuses a misspelt word, which would demand nothing at all.
func demandedWords(t testing.TB) []string {
	t.Helper()
	words := strings.FieldsFunc(os.Getenv(RequireEnv), func(r rune) bool { return r == ',' || r == ' ' })
	for _, word := range words {
		if _, known := requirements[word]; !known {
			t.Fatalf("nstest: unknown requirement %q in %s", word, RequireEnv)
		}
	}
	return words
}

// initialUserLink is what /proc shows of the user namespace the kernel starts
// with: PROC_USER_INIT_INO of include/linux/proc_ns.h.
const initialUserLink = "user:[4026531837]"

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
