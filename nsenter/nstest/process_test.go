package nstest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

var (
	progEcho = Program("echo", echo)
	progHang = Program("hang", func([]string) { select {} })
)

// echo prints its namespace, its arguments and then what it reads.
func echo(args []string) {
	link, _ := os.Readlink("/proc/self/ns/ipc")
	fmt.Println(link, args, os.Getuid())
	io.Copy(os.Stdout, os.Stdin)
}

func firstLine(t *testing.T, p *Process) string {
	t.Helper()
	line, err := p.Stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestStart(t *testing.T) {
	ns := Fresh(t)
	p := Start(t, ns, progEcho, "-test.v", "a b")
	if got, want := firstLine(t, p), fmt.Sprint(ns, " [-test.v a b] ", os.Getuid()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := io.WriteString(p.Stdin, "through\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if got := firstLine(t, p); got != "through" {
		t.Errorf("after its end: %q", got)
	}
}

func TestProgramStatus(t *testing.T) {
	p := Start(t, nil, progStatus)
	err := p.Wait()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit status 7", err)
	}
}

var progStatus = Program("status", func([]string) { os.Exit(7) })

func TestProgramNameIsTakenOnce(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("registered twice")
		}
	}()
	Program(progEcho, echo)
}

// When the test's process ends, its end of the leash is closed by the kernel.
func TestProgramEndsWithTest(t *testing.T) {
	p := Start(t, nil, progHang)
	p.leash.Close()
	ended := make(chan struct{})
	go func() { p.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it runs on")
	}
}

func TestInUserNS(t *testing.T) {
	pid := InUserNS(t)
	for _, link := range []string{"user", "ipc"} {
		own, err := os.Readlink("/proc/self/ns/" + link)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, link))
		if err != nil || got == own {
			t.Errorf("%s: %q, %v, want another than %q", link, got, err, own)
		}
	}
	ns, err := nsenter.OpenPID(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	owner, err := ns.Owner()
	if err != nil {
		t.Fatal(err)
	}
	if want := defaultExtents(); owner.Own || len(owner.UIDs) != 1 || owner.UIDs[0] != want[0] {
		t.Errorf("owner %+v, want %v", owner, want)
	}
}

func TestStartInUserNSIsRootThere(t *testing.T) {
	p := StartInUserNS(t, nil, progEcho, "x")
	if got := firstLine(t, p); !strings.HasSuffix(got, " [x] 0") {
		t.Errorf("got %q, want uid 0", got)
	}
}

// Main is in force here: a fresh namespace works, as whoever the suite is run.
func TestFresh(t *testing.T) {
	a, b := Fresh(t), Fresh(t)
	if same, err := a.Same(b); same || err != nil {
		t.Errorf("%s and %s: %t, %v", a, b, same, err)
	}
	err := a.Run(func() error {
		f, err := os.Open("/proc/sysvipc/msg")
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for n := 0; lines.Scan(); n++ {
			if n > 0 {
				return fmt.Errorf("not empty: %s", lines.Text())
			}
		}
		return lines.Err()
	})
	if err != nil {
		t.Error(err)
	}
}
