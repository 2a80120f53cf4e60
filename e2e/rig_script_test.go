package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A mishap is an action script of the test's own that does something bad, once
// only: the next try goes well. CRIU may run a script twice for each action.
type mishap struct{ script, armed string }

// at returns a script that runs body (sh) at one of CRIU's actions. criu is
// CRIU's pid there, dir its images directory.
func at(t testing.TB, action, body string) *mishap {
	t.Helper()
	dir, err := os.MkdirTemp(shared(t), "mishap-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &mishap{filepath.Join(dir, "script"), filepath.Join(dir, "armed")}
	text := fmt.Sprintf(`#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = %s ] && [ -e %s ] || exit 0
dir=$CRTOOLS_IMAGE_DIR
criu=${dir#/proc/}
criu=${criu%%%%/*}
%s
exit 0
`, action, m.armed, body)
	if err := os.WriteFile(m.script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, m.armed, "")
	return m
}

// over ends it: from now on the script does nothing.
func (m *mishap) over(t testing.TB) {
	t.Helper()
	if err := os.Remove(m.armed); err != nil {
		t.Fatal(err)
	}
}
