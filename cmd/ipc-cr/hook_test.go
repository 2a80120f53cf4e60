package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook/idle"
	"github.com/ipc-cr/ipc-cr/plugin/infront"
)

// hookProgram is the binary under the hook's name.
var hookProgram = nstest.Program("ipc-cr-criu-hook", func([]string) {
	os.Args[0] = "/anywhere/" + idle.Name
	main()
})

// hookRun runs the hook as CRIU would, with an environment of its own.
func hookRun(t *testing.T, env ...string) (status int, errs string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, "IPC_CR_NSTEST_PROGRAM="+hookProgram)...)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	held, end, err := os.Pipe() // the program ends when its leash does
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	defer end.Close()
	cmd.ExtraFiles = []*os.File{held}
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, &out, &stderr
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	if out.Len() > 0 {
		t.Errorf("stdout %q", out.String())
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// Any action that is none of ours is quick, silent and no error; so is the end of a
// restore of which nothing is to be noted.
func TestHookOtherAction(t *testing.T) {
	own := fmt.Sprintf("/proc/%d/fd/0", os.Getpid())
	for action, dir := range map[string]string{"network-lock": "/nonsense", "of-the-future": "/nonsense", "post-resume": own} {
		if status, errs := hookRun(t, "CRTOOLS_SCRIPT_ACTION="+action, "CRTOOLS_IMAGE_DIR="+dir); status != 0 || errs != "" {
			t.Errorf("%s: exit status %d, %q", action, status, errs)
		}
	}
}

// Why a dump goes the ordinary way although ipc-cr is in front comes into CRIU's
// log by way of the script.
func TestHookSaysWhyOrdinary(t *testing.T) {
	_, errs := hookRun(t, "CRTOOLS_SCRIPT_ACTION=pre-dump", "CRTOOLS_IMAGE_DIR=/proc/"+strconv.Itoa(os.Getpid())+"/fd/0",
		"CRTOOLS_INIT_PID="+strconv.Itoa(os.Getpid()), infront.OrdinaryEnv+"=the reason")
	if !strings.HasPrefix(errs, "ipc-cr: the reason\n") {
		t.Errorf("%q", errs)
	}
	_, errs = hookRun(t, "CRTOOLS_SCRIPT_ACTION=network-lock", infront.OrdinaryEnv+"=the reason")
	if errs != "" {
		t.Errorf("at another action: %q", errs)
	}
}

func TestHookByHand(t *testing.T) {
	status, errs := hookRun(t)
	if status != exitFailed || !strings.HasPrefix(errs, "ipc-cr: CRTOOLS_SCRIPT_ACTION is not set") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit status %d, %q", status, errs)
	}
}

func TestHookCommand(t *testing.T) {
	t.Setenv("CRTOOLS_SCRIPT_ACTION", "pre-dump")
	t.Setenv("CRTOOLS_IMAGE_DIR", "/nonsense")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // for the log, where there is no root
	began := time.Now().Truncate(time.Millisecond)
	runCommand(t, "criu-hook").wantError(t, exitFailed, `CRTOOLS_IMAGE_DIR "/nonsense" is no descriptor of CRIU's`)
	log, err := criuhook.ReadLog()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(log.Entries, func(e criuhook.LogEntry) bool {
		return !e.Time.Before(began) && e.Action == "pre-dump" && e.Dir == "/nonsense" && strings.Contains(e.Error, "is no descriptor of CRIU's")
	}) {
		t.Errorf("not logged: %+v", log.Entries)
	}
	runCommand(t, "criu-hook", "argument").wantError(t, exitUsage)
}
