package nstest

import (
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// RequireEnv holds, separated by commas, the requirements that the machine is
// known to meet: a test that would be skipped for one of them fails instead.
const RequireEnv = "IPC_CR_REQUIRE"

// requirements is the closed list. A check returns why the machine, or this run
// of the tests, does not meet it; each but that of memory is made once for each
// process.
var requirements = map[string]func() error{
	"userns":  makesNamespaces,
	"root":    sync.OnceValue(checkRoot),
	"criu":    sync.OnceValue(checkCRIU),
	"runc":    rootTool("runc"),
	"crun":    sync.OnceValue(checkCrun),
	"podman":  rootTool("podman"),
	"bpf":     sync.OnceValue(checkBPF),
	"host":    sync.OnceValue(checkHost),
	"freezer": sync.OnceValue(checkFreezer),
	"nsid":    sync.OnceValue(checkNamespaceIDs),
	"ids":     sync.OnceValue(checkIDs),
	"cc":      sync.OnceValue(checkCC),
	"memory":  checkMemory,
	"long":    checkLong,
	"fuse":    sync.OnceValue(checkFUSE),
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
//	host    root, in the host's IPC namespace
//	freezer root, and the freezer of cgroup v1 is mounted
//	nsid    the kernel gives namespaces 64-bit ids, as Linux 6.18 and later do
//	ids     this process may give objects to uid 1000 or 100001, as root may, and
//	        the root of a user namespace into which such a user is mapped
//	cc      a C compiler is on PATH
//	memory  root, and 4 GiB of memory are available now
//	long    the run is not a short one (go test -short)
//
// A test skips through Require alone: what it may be skipped for is on this list,
// and so can be demanded. The test fails instead if the environment variable IPC_CR_REQUIRE names the
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
		t.Skipf("needs %s: %v", word, err) //nolint:forbidigo // the one place that may
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
