package infront

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// commandProgram is a command behind a Link that has started criu, and says where
// the link is, and what pid criu has.
var commandProgram = nstest.Program("infront.command", func(args []string) {
	link, err := NewLink()
	if err != nil {
		panic(err)
	}
	criu := exec.Command(link.Name(), "dump", "-t", args[0])
	criu.Stdout = os.Stdout
	if err := criu.Start(); err != nil {
		panic(err)
	}
	fmt.Println(link.Name(), criu.Process.Pid)
	select {}
})

// wantScript wants the action script beside the link to be there, or to be gone.
func wantScript(t *testing.T, when, link string, want bool) {
	t.Helper()
	err := unix.Access(filepath.Join(filepath.Dir(link), HookName), unix.X_OK)
	if (err == nil) != want {
		t.Errorf("%s, the action script: %v", when, err)
	}
}

// A criu that outlives the command which started it finds its action script up to
// its own end.
func TestLinkStaysForItsCRIU(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, tells)
	t.Setenv("TMPDIR", t.TempDir())
	link, err := NewLink()
	if err != nil {
		t.Fatal(err)
	}
	task := startSleeper(t, nstest.Fresh(t)).Process.Pid
	criu := exec.Command(link.Name(), "dump", "-t", strconv.Itoa(task))
	started(t, link, criu)
	if err := link.Close(); err != nil {
		t.Fatal(err)
	}
	wantScript(t, "criu runs", link.Name(), true)
	_ = criu.Process.Kill()
	_ = criu.Wait()
	if err := link.Close(); err != nil {
		t.Fatal(err)
	}
	wantScript(t, "criu has ended", link.Name(), false)
}

// Nor does the next command take it away when the one before was killed.
func TestSweepLinksSparesARunningCRIU(t *testing.T) {
	nstest.Require(t, "userns")
	fakeCRIU(t, "#!/bin/sh\necho dumps\nexec sleep 900\n")
	t.Setenv("TMPDIR", t.TempDir())
	task := startSleeper(t, nstest.Fresh(t)).Process.Pid
	command := nstest.Start(t, nil, commandProgram, strconv.Itoa(task))
	link, criu := "", 0
	for range 2 { // the command's line, and criu's
		line, err := command.Stdout.ReadString('\n')
		if err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		if line != "dumps\n" {
			if _, err := fmt.Sscan(line, &link, &criu); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	t.Cleanup(func() { _ = unix.Kill(criu, unix.SIGKILL) })
	command.Kill()
	newLink(t)
	wantScript(t, "criu runs", link, true)
	if err := unix.Kill(criu, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if sweepLinks(os.TempDir()); unix.Access(filepath.Dir(link), unix.F_OK) != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is there 30 s after criu has ended", link)
		}
	}
}
