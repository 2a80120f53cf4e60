package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// nobodyProgram is the command as a user without any privilege.
var nobodyProgram = nstest.Program("nobody", asNobody)

const nobody = 65534

func asNobody([]string) {
	for _, err := range []error{
		syscall.Setgroups(nil), syscall.Setresgid(nobody, nobody, nobody), syscall.Setresuid(nobody, nobody, nobody),
	} {
		if err != nil {
			panic(err)
		}
	}
	os.Unsetenv("XDG_RUNTIME_DIR")
	main()
}

// runProcess runs the command as a process of its own.
func runProcess(p *nstest.Process) (status int, out string) {
	text, err := io.ReadAll(p.Stdout)
	if err == nil {
		err = p.Wait()
	}
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		return exit.ExitCode(), string(text)
	}
	if err != nil {
		return -1, err.Error()
	}
	return 0, string(text)
}

// feature is a line of the document, without the reason, which is the kernel's.
type feature struct {
	Name   string
	For    string
	Needed bool
	OK     bool
	Detail string
	Remedy string
}

// features lists "yes" and "no" with the names, and wants a reason and a remedy
// of each no.
func features(t *testing.T, text string) string {
	t.Helper()
	var document struct{ Features []feature }
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	list := ""
	for _, f := range document.Features {
		if f.OK != (f.Detail == "") || f.OK != (f.Remedy == "") || f.For == "" {
			t.Errorf("%+v", f)
		}
		list += fmt.Sprintf("%t needed=%t %s\n", f.OK, f.Needed, f.Name)
	}
	return list
}

func TestCheckAsRoot(t *testing.T) {
	nstest.Require(t, "root")
	r := runCommand(t, "check", "--json")
	if r.status != 0 || r.err != "" {
		t.Errorf("exit status %d, stderr %q", r.status, r.err)
	}
	for line := range strings.Lines(features(t, r.out)) {
		if !strings.HasPrefix(line, "true ") && line != "false needed=false namespace ids\n" {
			t.Errorf("root: %s", line)
		}
	}
	text := mustRun(t, "check")
	if lines := strings.Count(text, "yes  "); lines < 8 || !strings.HasPrefix(text, "yes  IPC namespaces\nyes  MSG_COPY\n") {
		t.Errorf("text: %q", text)
	}
}

// In a user namespace everything works but what is the host's.
func TestCheckInUserNamespace(t *testing.T) {
	nstest.Require(t, "userns")
	status, out := runProcess(nstest.StartInUserNS(t, nil, commandProgram, "check", "--json"))
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, out)
	}
	for line := range strings.Lines(features(t, out)) {
		if strings.HasPrefix(line, "false needed=true") {
			t.Errorf("in a user namespace: %s", line)
		}
	}
}

// Without any privilege the exit status is 1, and the remedy is said.
func TestCheckWithoutPrivilege(t *testing.T) {
	nstest.Require(t, "root")
	status, out := runProcess(nstest.Start(t, nil, nobodyProgram, "check", "--json"))
	if status != 1 {
		t.Errorf("exit status %d", status)
	}
	wantGolden(t, "check-nobody.txt", features(t, out))
	status, out = runProcess(nstest.Start(t, nil, nobodyProgram, "check"))
	if status != 1 || !strings.HasPrefix(out, "no   IPC namespaces: make an ipc namespace: unshare: operation not permitted") ||
		!strings.Contains(out, "\n     needed for everything; remedy: run as root, or under unshare -Ur or podman unshare\n") {
		t.Errorf("exit status %d, text %q", status, out)
	}
}

// Check leaves nothing behind: not even queues in its own namespace.
func TestCheckLeavesNothing(t *testing.T) {
	nstest.Require(t, "userns")
	ns := nstest.Fresh(t)
	if status, out := runProcess(nstest.Start(t, ns, commandProgram, "check")); status != 0 {
		t.Errorf("exit status %d: %s", status, out)
	}
	if queues, messages := countMessages(t, ns); queues != 0 || messages != 0 {
		t.Errorf("%d queues, %d messages", queues, messages)
	}
}
