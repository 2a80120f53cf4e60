package e2e_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// run runs the binary under test, which must succeed, and returns its stdout.
func run(t testing.TB, args ...string) string {
	t.Helper()
	out, trouble, err := try(t, args...)
	if err != nil {
		t.Fatalf("ipc-cr %q: %v\n%s%s", args, err, out, trouble)
	}
	return out
}

func try(t testing.TB, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command(ipcCR(t), args...)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	err = cmd.Run()
	return out.String(), trouble.String(), err
}

// refused runs the binary, which must fail with one line that holds a text.
func refused(t testing.TB, text string, args ...string) {
	t.Helper()
	_, trouble, err := try(t, args...)
	if err == nil {
		t.Fatalf("ipc-cr %q succeeds, want an error with %q", args, text)
	}
	if !strings.Contains(trouble, text) || strings.Count(trouble, "\n") != 1 {
		t.Errorf("ipc-cr %q says %q, want one line with %q", args, trouble, text)
	}
}
