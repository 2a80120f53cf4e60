package criuconf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// scriptsRun lets the real CRIU dump a task with a configuration file, and
// returns which scripts it ran at pre-dump. The scripts are A and B in dir.
func scriptsRun(t *testing.T, dir, text string) ([]string, error) {
	t.Helper()
	ran := filepath.Join(dir, "ran")
	for _, name := range []string{"A", "B"} {
		script := fmt.Sprintf("#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" != pre-dump ] || echo %s >>%s\n", name, ran)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf, images := filepath.Join(dir, "criu.conf"), filepath.Join(dir, "images")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(images, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ran, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("criu", "dump", "--leave-running", "-t", strconv.Itoa(task(t)), "-D", images)
	cmd.Env = append(os.Environ(), "CRIU_CONFIG_FILE="+conf)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	list, readErr := os.ReadFile(ran)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return strings.Fields(string(list)), err
}

// task is something to dump: a session of its own without a terminal.
func task(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// CRIU reads the format as Scripts does, and runs the last line's script first.
func TestScriptsAsCRIUReadsThem(t *testing.T) {
	nstest.Require(t, "root", "criu")
	for name, c := range understood {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want := []string{}
			for _, s := range slices.Backward(c.want) {
				want = append(want, s.Path)
			}
			paths := strings.NewReplacer("script A", "script "+dir+"/A", "script B", "script "+dir+"/B",
				"script=A", "script="+dir+"/A", "script\tA", "script\t"+dir+"/A", "script   A", "script   "+dir+"/A", "action A", "action "+dir+"/A", "\"A\"", "\""+dir+"/A\"")
			got, err := scriptsRun(t, dir, paths.Replace(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("CRIU ran (-want +got):\n%s", diff)
			}
		})
	}
}

// CRIU runs the script of a file that New made, and of one that Add changed,
// beside the script that was there.
func TestCRIURunsWhatIsAdded(t *testing.T) {
	nstest.Require(t, "root", "criu")
	dir := t.TempDir()
	a, b := filepath.Join(dir, "A"), filepath.Join(dir, "B")
	made, err := New(a)
	if err != nil {
		t.Fatal(err)
	}
	added, err := Add([]byte("# theirs\r\nlog-file x.log # and\naction-script \""+b+"\""), a)
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string][]byte{"A": made, "B A": added} {
		if got, err := scriptsRun(t, t.TempDir(), "# empty\n"); err != nil || len(got) != 0 {
			t.Fatalf("without: %q, %v", got, err)
		}
		if got, err := scriptsRun(t, dir, string(text)); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: CRIU ran %q, %v, want %s", text, got, err, want)
		}
	}
}

// What Scripts refuses as CRIU's syntax, CRIU refuses too, or takes for what nobody means.
func TestCRIURefuses(t *testing.T) {
	nstest.Require(t, "root", "criu")
	const format = "Unsupported configuration file format"
	for text, says := range map[string]string{
		"a b c d e\n":                       format,
		"log-file \"x\n":                    format,
		"action-script /a /b\n":             format,
		"tcp-close\r\n":                     "unrecognized option '--tcp-close\r'",
		"tcp-close#now\n":                   "unrecognized option '--tcp-close#now'",
		"--tcp-close\n":                     "unrecognized option '----tcp-close'",
		"action-script\t/bin/true # mine\n": "unrecognized option '--action-script\t/bin/true'",
		"action-script /bin/true\r\n":       "execvp(\"/bin/true\r\", ...) failed: No such file or directory",
	} {
		if got, err := scriptsRun(t, t.TempDir(), text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: CRIU ran %q, %v, want %q", text, got, err, says)
		}
	}
}
