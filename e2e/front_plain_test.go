package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// said is all that a program says to those who started it.
type said struct {
	status   int
	out, err string
}

func saidBy(cmd *exec.Cmd) said {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// stamped is what differs in the log lines of two runs: time and pid.
var stamped = regexp.MustCompile(`\(\d+\.\d+\)|pid \d+`)

// Who asks criu for something else than a dump in a namespace of its own does not
// notice that ipc-cr is in front: not a byte, not the exit status.
func TestFrontIsNotNoticed(t *testing.T) {
	nstest.Require(t, "criu")
	through := allFronts[0].through(t)
	for _, args := range []string{
		"--version", "--help", "check", "check --all", "", "no-such-command", "dump", "dump -t 1x", "restore -D /no/such/directory", "swrk",
	} {
		t.Run(args, func(t *testing.T) {
			plain := saidBy(exec.Command("criu", strings.Fields(args)...))
			front := saidBy(started(through, "criu", strings.Fields(args)...))
			if strings.HasPrefix(args, "dump") || args == "swrk" { // of which ipc-cr says that it does not understand it
				front.err = without(front.err, "ipc-cr: the dump goes the ordinary way")
			}
			if stamped.ReplaceAllString(front.err, "") != stamped.ReplaceAllString(plain.err, "") || front.out != plain.out || front.status != plain.status {
				t.Errorf("in front %+v, criu alone %+v", front, plain)
			}
		})
	}
}

// A dump and a restore in the host's namespace, on both ways: nothing is said.
func TestFrontOnTheHost(t *testing.T) {
	nstest.Require(t, "criu", "host")
	host := namespaceOf(t, os.Getpid())
	through := allFronts[0].through(t)
	sub := startInNamespace(t, newCrew(t), "", host)
	for _, through := range [][]string{nil, through} {
		got := saidBy(started(through, "criu", "dump", "-t", strconv.Itoa(sub.k.pid), "-D", sub.dir, "-o", "dump.log", "-v4", "--leave-running"))
		if got != (said{}) {
			t.Errorf("behind %q: %+v", through, got)
		}
		if strings.Contains(sub.logs(), "ipc-cr") {
			t.Error(sub.logs())
		}
	}
}

// What does not allow the way beside the namespace goes the ordinary way and is as
// right; the log says why.
func TestFrontOrdinaryWay(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t testing.TB, ns *nsenter.Namespace)
		says string
	}{
		"semaphores":    {func(t testing.TB, ns *nsenter.Namespace) { makeOther(t, ns, unix.SYS_SEMGET, 1) }, "1 semaphore sets"},
		"shared memory": {func(t testing.TB, ns *nsenter.Namespace) { makeOther(t, ns, unix.SYS_SHMGET, 4096) }, "1 shared memory segments"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, []way{byCRIU, byRunc}, func(t *testing.T, w way) {
				crew := newCrew(t, talking...)
				sub := w.start(t, crew, hookConf(t))
				goThrough(sub, allFronts[0].through(t))
				crew.works(t) // it has made its queues: no msgget takes the id that the next one asks for
				c.make(t, nsOf(t, sub))
				everything.make(t, nsOf(t, sub))
				saved := queues(t, nsOf(t, sub))
				mustSave(t, sub)
				if log := sub.logs(); !strings.Contains(log, "the dump goes the ordinary way") || !strings.Contains(log, c.says) || !strings.Contains(log, "verified") {
					t.Errorf("the log does not say %q:\n%s", c.says, log)
				}
				mustLoad(t, sub)
				compareQueues(t, saved, queues(t, nsOf(t, sub)))
				crew.works(t)
			})
		})
	}
}

// makeOther makes a private object of another kind.
func makeOther(t testing.TB, ns *nsenter.Namespace, call, size uintptr) {
	t.Helper()
	inNamespace(t, ns, func() error {
		_, err := syscallMsg(call, 0, size, unix.IPC_CREAT|0o600, 0, 0)
		return err
	})
}

// onHost is a script for a mount namespace of its own, in which /usr/local is an
// overlay: there the binary is installed as an administrator does it. No directory of
// PATH comes before /usr/local/sbin: a criu in there moves to the next.
const onHost = `set -e
mount -t overlay local -o lowerdir=/usr/local,upperdir=%[1]s/upper,workdir=%[1]s/work /usr/local
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
! [ -e /usr/local/sbin/criu ] || mv /usr/local/sbin/criu /usr/local/bin/criu
install -m 755 %[2]s /usr/local/bin/ipc-cr
real=$(command -v criu)
ipc-cr install --in-front
[ "$(command -v criu)" = /usr/local/sbin/criu ]
hash -r
ipc-cr check | grep 'in front of criu for services: /usr/local/sbin/criu, before '"$real"
ipc-cr install --in-front | grep 'criu: unchanged'
criu --version
runc --root %[3]s checkpoint --image-path %[4]s --work-path %[4]s %[5]s
install -m 755 %[2]s /usr/local/bin/ipc-cr.new
mv /usr/local/bin/ipc-cr.new /usr/local/bin/ipc-cr
ipc-cr uninstall
hash -r
[ "$(command -v criu)" = "$real" ]
! [ -e /usr/local/sbin/criu ] && ! [ -e /usr/local/bin/ipc-cr-criu-hook ]
`

// TestFrontOfTheHost installs into the real place, which for everybody else on
// the machine stays as it is.
func TestFrontOfTheHost(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	c := newCrew(t, talking...)
	sub := startByRunc(t, c, scriptConf(t))
	c.works(t)
	manyPlain.make(t, nsOf(t, sub))
	saved := queues(t, nsOf(t, sub))
	layer := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "layer", layer) // an overlay cannot be the upper layer of another
	t.Cleanup(func() { command(t, "umount", layer) })
	for _, dir := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(layer, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf(onHost, layer, ipcCR(t), sub.state, sub.dir, sub.id)
	if err := failure(exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script)); err != nil {
		t.Fatal(err)
	}
	wantBeside(t, sub)
	mustLoad(t, sub)
	compareQueues(t, saved, queues(t, nsOf(t, sub)))
	c.works(t)
}

// TestFrontCosts says how much longer criu takes to start.
func TestFrontCosts(t *testing.T) {
	nstest.Require(t, "criu")
	through := []string{"env", "PATH=" + os.Getenv("PATH")}
	var took [2][]time.Duration
	for range rounds(t, 20) {
		for i, through := range [][]string{through, allFronts[0].through(t)} {
			began := time.Now()
			if got := saidBy(started(through, "criu", "--version")); got.status != 0 {
				t.Fatalf("%+v", got)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	t.Logf("criu --version: %v alone, %v with ipc-cr in front", slices.Min(took[0]), slices.Min(took[1]))
}
