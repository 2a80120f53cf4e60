package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// dump checkpoints the task's tree into a new directory and returns that. The
// tree lives on with --leave-running among the arguments, else it is gone.
func dump(t testing.TB, k *task, args ...string) (dir string) {
	t.Helper()
	dir = imagesDir(t)
	runCRIU(t, dir, "dump.log", append([]string{"dump", "-t", strconv.Itoa(k.pid)}, args...)...)
	if !slices.Contains(args, "--leave-running") {
		k.kill(t) // it is reaped, which frees its pid
	}
	return dir
}

// imagesDir makes an images directory that a mapped root can search, as CRIU needs it.
func imagesDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared(t), "images-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// restore brings back the tree that dump saved. The old one must be gone,
// because the tasks get their old pids. As a sibling of criu the new one is a
// child of the test, which can then wait for its end.
func restore(t testing.TB, dir string, args ...string) *task {
	t.Helper()
	pidfile := filepath.Join(t.TempDir(), "pid")
	args = append([]string{"restore", "--restore-detached", "--restore-sibling", "--pidfile", pidfile}, args...)
	runCRIU(t, dir, "restore.log", args...)
	process, err := os.FindProcess(readPID(t, pidfile))
	if err != nil {
		t.Fatal(err)
	}
	k := &task{pid: process.Pid, wait: func() error { _, err := process.Wait(); return err }}
	t.Cleanup(func() { k.kill(t) })
	return k
}

func runCRIU(t testing.TB, dir, log string, args ...string) {
	t.Helper()
	out, err := exec.Command("criu", append(args, "-D", dir, "-o", log, "-v4")...).CombinedOutput()
	if err != nil {
		t.Fatalf("criu %q: %v\n%s%s", args, err, out, errorsIn(filepath.Join(dir, log)))
	}
}

// errorsIn returns the lines of a CRIU log that tell what went wrong.
func errorsIn(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	var found strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
			found.WriteString(line)
		}
	}
	return found.String()
}

func readPID(t testing.TB, pidfile string) int {
	t.Helper()
	text, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// An imageFile is one of CRIU's, as its own tool decodes it.
type imageFile struct {
	Magic   string           `json:"magic"`
	Entries []map[string]any `json:"entries"`
}

// showImage decodes a file with crit, which shares no code with us.
func showImage(t testing.TB, path string) imageFile {
	t.Helper()
	var image imageFile
	crit(t, path, &image)
	return image
}

func crit(t testing.TB, path string, image any) {
	t.Helper()
	out, err := exec.Command("crit", "show", path).Output()
	if err != nil {
		t.Fatalf("crit show %s: %v", path, err)
	}
	if err := json.Unmarshal(out, image); err != nil {
		t.Fatalf("crit show %s: %v\n%s", path, err, out)
	}
}

// namespaceNumber returns N of ipcns-*-N.img: what the tasks of the dump call
// their IPC namespace.
func namespaceNumber(t testing.TB, dir string) int {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "ids-*.img"))
	numbers := map[int]bool{}
	for _, file := range files {
		n, _ := showImage(t, file).Entries[0]["ipc_ns_id"].(float64)
		numbers[int(n)] = true
	}
	if len(numbers) != 1 || numbers[0] {
		t.Fatalf("%s: the tasks of %d files name these IPC namespaces: %v", dir, len(files), numbers)
	}
	for n := range numbers {
		return n
	}
	panic("unreachable")
}
