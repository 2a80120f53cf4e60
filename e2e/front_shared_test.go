package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Pods and user namespaces, with CRIU beside the namespace.
func TestFrontShared(t *testing.T) {
	for _, f := range allFronts {
		through := f.through(t)
		t.Run(f.name, func(t *testing.T) {
			t.Run("into a fresh namespace", func(t *testing.T) { runcPodCarried(t, []int{0, 1}, through) })
			t.Run("in reverse", func(t *testing.T) { runcPodCarried(t, []int{1, 0}, through) })
			t.Run("in place", func(t *testing.T) { runcInPlace(t, through) })
			t.Run("both at once", func(t *testing.T) { bothAtOnce(t, through, through) })
			t.Run("one beside and one not", func(t *testing.T) { bothAtOnce(t, through, nil) })
			t.Run("user namespace", func(t *testing.T) { userNamespaceCarried(t, through) })
		})
	}
}

func TestFrontBusyPod(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	busyPod(t, hookConf(t), 0, allFronts[1].through(t))
}

// The hook copies as the settings say.
func TestFrontMethod(t *testing.T) {
	nstest.Require(t, append([]string{"bpf"}, byRunc.needs...)...)
	leavesNothing(t)
	c := newCrew(t, talking...)
	s := startByRunc(t, c, hookConf(t))
	c.works(t)
	makeQueue(t, nsOf(t, s), 0x1234, twoThousand()...)
	for settings, want := range map[string]string{"": "bpf", "method = \"copy\"\n": "copy"} {
		s.dir = imagesDir(t)
		line := append(allFronts[1].through(t), "runc", "--root", s.state, "checkpoint", "--leave-running",
			"--image-path", s.dir, "--work-path", s.dir, s.id)
		if err := withSettings(t, settings, line...); err != nil {
			t.Fatalf("%q: %v\n%s", settings, err, s.logs())
		}
		wantBeside(t, s)
		text, err := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("ipc-cr-%d.json", namespaceNumber(t, s.dir))))
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("%q: %q", "method", want)) {
			t.Errorf("%q: %v, copied otherwise than with %q:\n%.300s", settings, err, want, text)
		}
	}
}
