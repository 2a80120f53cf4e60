package e2e_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A front is how ipc-cr comes before criu for a checkpoint.
type front struct {
	name    string
	through func(t testing.TB) []string // what a command line is started with
}

var allFronts = []front{
	{"installed", func(t testing.TB) []string { return []string{"env", "PATH=" + installedPath(t)} }},
	{"run", func(t testing.TB) []string { return []string{ipcCR(t), "run", "--"} }},
}

// started is a program and its arguments, behind those of another program that
// executes it.
func started(through []string, program string, args ...string) *exec.Cmd {
	line := slices.Concat(through, []string{program}, args)
	return exec.Command(line[0], line[1:]...)
}

// goThrough makes a subject's checkpoints start that way.
func goThrough(s subject, through []string) {
	switch s := s.(type) {
	case *criuSubject:
		s.through = through
	case *runcSubject:
		s.through = through
	case *crunSubject:
		s.through = through
	case *podmanSubject:
		s.through = through
	}
}

// installedPath is a PATH that begins with a place into which ipc-cr has
// installed itself, once a test run. It is no directory of the machine's PATH, so
// that nobody else's checkpoints go through it; only root can write it, which
// install insists on, unlike what is below /tmp.
func installedPath(t testing.TB) string {
	t.Helper()
	dir, err := installedDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "first") + ":" + os.Getenv("PATH")
}

var installedDir = sync.OnceValues(func() (string, error) {
	dir, err := rootDir()
	if err != nil {
		return "", err
	}
	first := filepath.Join(dir, "first")
	install := exec.Command(filepath.Join(dir, "ipc-cr"), "install", "--in-front", "--dir", first)
	install.Env = append(os.Environ(), "PATH="+first+":"+os.Getenv("PATH"))
	if out, err := install.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return dir, nil
})

// rootDir makes a directory that is root's down from /, with a copy of the binary
// under test, which goes with the test process.
func rootDir() (string, error) {
	if err := buildIPCCR(); err != nil {
		return "", err
	}
	from, err := sharedDir()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("/var/lib", "ipc-cr-e2e-")
	if err != nil {
		return "", err
	}
	err = errors.Join(os.Chmod(dir, 0o755), removeAfterUs(dir))
	if err != nil {
		return "", err
	}
	return dir, copyFile(filepath.Join(dir, "ipc-cr"), filepath.Join(from, "ipc-cr"), 0o755)
}

// wantBeside wants the checkpoint to be one that was taken beside the namespace,
// and said so once, however often CRIU called the hook.
func wantBeside(t testing.TB, s subject) {
	t.Helper()
	if n := strings.Count(s.logs(), "saved beside CRIU"); n != 1 {
		t.Errorf("%d lines tell of a checkpoint beside the namespace, want 1:\n%s", n, s.logs())
	}
}

// twoThousand fills a queue as far as CRIU's own restore can: its qbytes are the
// default, and no creator is lost.
func twoThousand() (messages []message) {
	for n := range 2000 {
		messages = append(messages, message{int64(n%5 + 1), pattern(n%7 + 2)})
	}
	return messages
}
