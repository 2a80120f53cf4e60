package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// uninstalling runs uninstall until it says that it waits, and returns that line.
func (m *machine) uninstalling(t testing.TB, args ...string) (cmd *exec.Cmd, out *strings.Builder, line string) {
	t.Helper()
	out = &strings.Builder{}
	cmd = m.command("ipc-cr", append([]string{"uninstall"}, args...)...)
	cmd.Stdout = out
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(errs)
	if line, err = lines.ReadString('\n'); err != nil {
		t.Errorf("uninstall says nothing: %v, stdout %q", err, out)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return cmd, out, line
}

// A dump that has begun finds the hook up to its end, though the hook is
// uninstalled meanwhile: by the lines that criu has read, and in front of criu.
func TestUninstallDuringADump(t *testing.T) {
	for name, c := range map[string]struct {
		install   []string
		uninstall []string
		gone      string
		beside    bool
	}{
		"a configuration file":     {[]string{"--runtime", "criu"}, nil, defaultConf, false},
		"one of several runtimes'": {[]string{"--runtime", "criu"}, []string{"--runtime", "criu"}, defaultConf, false},
		"in front of criu":         {[]string{"--in-front"}, []string{"--in-front"}, "/usr/local/sbin/criu", true},
		"in front and a file":      {[]string{"--in-front", "--runtime", "criu"}, nil, defaultConf, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustIPCCR(t, append([]string{"install"}, c.install...)...)
			m.want(t, true, c.gone, machineScript)
			d := m.pausedDump(t)
			dry := m.mustIPCCR(t, append([]string{"uninstall", "--dry-run"}, c.uninstall...)...)
			if !strings.Contains(dry, "): would be waited for\n") {
				t.Errorf("dry run: %s", dry)
			}
			cmd, out, line := m.uninstalling(t, c.uninstall...)
			if !strings.HasPrefix(line, "ipc-cr: uninstall: waiting for criu, process ") || !strings.Contains(line, "dump --leave-running") {
				t.Errorf("it says %q", line)
			}
			m.want(t, false, c.gone)
			m.want(t, true, machineScript)
			d.goOn(t)
			if err := cmd.Wait(); err != nil {
				t.Errorf("uninstall: %v, %s", err, out)
			}
			m.want(t, false, c.gone, machineScript, "/usr/local/sbin/criu", defaultConf)
			if !strings.Contains(out.String(), "): has ended\n") || !strings.Contains(out.String(), machineScript+": removed\n") {
				t.Errorf("it reports %s", out)
			}
			if c.beside && !strings.Contains(hookSaid(d.dir), "beside CRIU") {
				t.Errorf("no dump beside the namespace:\n%s", hookSaid(d.dir))
			}
		})
	}
}

// fakeCRIU starts a process that is criu by its file and lives on, behind programs
// that execute it. It is cat, which reads its stdin first, whatever it is told
// besides.
func fakeCRIU(t testing.TB, through []string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp(shared(t), "criu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	criu := filepath.Join(dir, "criu")
	cat, err := exec.LookPath("cat")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), copyFile(criu, cat, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := started(through, criu, args...)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	waitFor(t, "criu", func() bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
		return err == nil && filepath.Base(exe) == "criu"
	})
	return cmd
}

// A criu that does not end keeps the hook, and nothing else; the next uninstall
// takes it away.
func TestUninstallGivesUp(t *testing.T) {
	m := newMachine(t)
	m.mustIPCCR(t, "install", "--runtime", "criu", "--in-front")
	criu := fakeCRIU(t, m.through(), "-", "a\n\x1b[31m")
	names := fmt.Sprintf("criu, process %d (\"", criu.Process.Pid)
	for _, wait := range []string{"100ms", "0"} {
		began := time.Now()
		got := m.ipcCR("uninstall", "--wait", wait)
		if got.status != 1 || time.Since(began) > 30*time.Second {
			t.Errorf("--wait %s: %+v after %v", wait, got, time.Since(began))
		}
		last := got.err[strings.LastIndex(strings.TrimSuffix(got.err, "\n"), "\n")+1:]
		for _, word := range []string{"ipc-cr: uninstall: remove " + machineScript + ": a criu that runs may still call it", ": " + names, `criu - a\n\x1b[31m")`,
			"nothing names it any more, and the link stays", "run ipc-cr uninstall again when it has ended"} {
			if !strings.Contains(last, word) {
				t.Errorf("--wait %s: %q does not say %q", wait, last, word)
			}
		}
		if !strings.Contains(got.out, names) || !strings.Contains(got.out, "): still runs\n") || strings.Contains(got.out, "\x1b") {
			t.Errorf("--wait %s: it reports %q", wait, got.out)
		}
		if waits := strings.Contains(got.err, "waiting for"); waits != (wait != "0") {
			t.Errorf("--wait %s: %q", wait, got.err)
		}
		m.want(t, false, defaultConf, "/usr/local/sbin/criu")
		m.want(t, true, machineScript)
	}
	m.wantRunning(t, criu.Process.Pid)
	_ = criu.Process.Kill()
	_ = criu.Wait()
	m.mustIPCCR(t, "uninstall")
	m.want(t, false, machineScript)
}

// wantRunning wants the document of an uninstall that gives up to name a process,
// and to say that the script stays.
func (m *machine) wantRunning(t testing.TB, pid int) {
	t.Helper()
	got := m.ipcCR("uninstall", "--wait", "0", "--json")
	var document struct {
		Changes []struct{ Path, Action string }
		Running []struct {
			PID     int
			Command string
			Ended   *bool
		}
	}
	if err := json.Unmarshal([]byte(got.out), &document); err != nil || got.status != 1 {
		t.Fatalf("%v: %+v", err, got)
	}
	r := document.Running
	if len(r) != 1 || r[0].PID != pid || !strings.HasSuffix(r[0].Command, "criu - a\n\x1b[31m") || r[0].Ended == nil || *r[0].Ended {
		t.Errorf("running: %+v", r)
	}
	if c := document.Changes; len(c) != 1 || c[0].Path != machineScript || c[0].Action != "unchanged" {
		t.Errorf("changes: %+v", c)
	}
}

// A criu that has nothing to do with the hook is not waited for: a user's, root's of
// a user namespace, or one for which the script's path leads elsewhere.
func TestUninstallIgnoresOthers(t *testing.T) {
	m := newMachine(t)
	for name, through := range map[string][]string{
		"a user's":              append(m.through(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
		"of a user namespace":   append(m.through(), "unshare", "--user", "--map-root-user"),
		"of another root":       append(m.through(), "unshare", "--mount", "sh", "-c", `mount -t tmpfs x /usr/local/bin && exec "$@"`, "sh"),
		"of another /usr/local": nil,
	} {
		t.Run(name, func(t *testing.T) {
			m.mustIPCCR(t, "install", "--runtime", "criu")
			fakeCRIU(t, through, "-")
			if got := m.ipcCR("uninstall", "--wait", "0"); got.status != 0 || got.err != "" || strings.Contains(got.out, "criu, process") {
				t.Errorf("%+v", got)
			}
			m.want(t, false, machineScript, defaultConf)
		})
	}
}

// An interrupt ends the wait at once, and says what is done.
func TestUninstallInterrupted(t *testing.T) {
	m := newMachine(t)
	m.mustIPCCR(t, "install", "--runtime", "criu")
	fakeCRIU(t, m.through(), "-")
	cmd, out, _ := m.uninstalling(t, "--wait", "10m")
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it waits on")
	}
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "): still runs\n") {
		t.Errorf("%v, %s", cmd.ProcessState, out)
	}
	m.want(t, false, defaultConf)
	m.want(t, true, machineScript)
}
