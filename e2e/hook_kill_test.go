package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"golang.org/x/sys/unix"
)

// Bodies of scripts. On restore the task in the making goes too: it holds CRIU's
// socket to runc open, which would wait for an answer forever.
const (
	killCRIU = `kill -9 "$criu"; sleep 1`
	killBoth = `kill -9 "$criu" $CRTOOLS_INIT_PID; sleep 1`
)

// killWardens kills what the hook has left behind for its next action.
func killWardens(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf(`for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" = %s ] && kill -9 "${p#/proc/}"; done; :`, ipcCR(t))
}

// hookKilled returns a script that is the hook, but for the action at which it
// is killed after a moment.
func hookKilled(t testing.TB, action, after string) *mishap {
	t.Helper()
	m := at(t, action, fmt.Sprintf("(sleep %s; kill -9 $$) & exec %s", after, hookPath(t)))
	text, err := os.ReadFile(m.script)
	if err != nil {
		t.Fatal(err)
	}
	m.script += "-or-hook"
	instead := fmt.Sprintf("#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" = %s ] && [ -e %s ] || exec %s\n", action, m.armed, hookPath(t))
	if err := os.WriteFile(m.script, append([]byte(instead), text...), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// A death is one of somebody's at one of CRIU's actions. conf puts it in force
// together with the hook.
type death struct {
	name string
	conf func(t testing.TB) (conf string, m *mishap)
}

func deathsAt(action, killing string) []death {
	deaths := []death{
		{"CRIU before the hook at " + action, func(t testing.TB) (string, *mishap) {
			m := at(t, action, killing)
			return hookConf(t, m.script), m
		}},
		{"CRIU after the hook at " + action, func(t testing.TB) (string, *mishap) {
			m := at(t, action, killing)
			return scriptConf(t, hookPath(t), m.script), m
		}},
		{"warden before the hook at " + action, func(t testing.TB) (string, *mishap) {
			m := at(t, action, killWardens(t))
			return hookConf(t, m.script), m
		}},
	}
	for _, after := range []string{"0", "0.003", "0.006"} {
		deaths = append(deaths, death{fmt.Sprintf("hook at %s after %s s", action, after), func(t testing.TB) (string, *mishap) {
			m := hookKilled(t, action, after)
			return scriptConf(t, m.script), m
		}})
	}
	return deaths
}

// TestHookKilledOnDump wants both containers of a pod at work afterwards, and
// the next checkpoint to succeed. (CRIU killed later than this leaves its own
// code in the tasks.)
func TestHookKilledOnDump(t *testing.T) {
	deaths := append(deathsAt("pre-dump", killCRIU), deathsAt("post-dump", "")[2:]...)
	for _, d := range deaths {
		t.Run(d.name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			conf, m := d.conf(t)
			p := newRuncPod(t, conf, oneEnd, otherEnd)
			work(t, p.crews...)
			for _, c := range p.crews {
				c.ask(t, "go")
			}
			err := p.members[0].save(t, "--leave-running")
			t.Logf("the checkpoint: %v", err)
			withoutGuard(t)
			for i, s := range p.members {
				checkRuns(t, s.pid(t))
				p.crews[i].advance(t, p.crews[i].ask(t, "report"), 20)
			}
			m.over(t)
			p.members[0].dir = imagesDir(t)
			mustSave(t, p.members[0])
			mustLoad(t, p.members[0])
			for _, c := range p.crews {
				c.advance(t, c.ask(t, "report"), 20)
			}
			for _, c := range p.crews {
				c.ask(t, "stop")
			}
			accounted(t, p.ns, p.crews)
			if t.Failed() {
				t.Log(p.members[0].logs())
			}
		})
	}
}

// TestHookKilledOnRestore wants the image whole and under its own name, and the
// next try to succeed.
func TestHookKilledOnRestore(t *testing.T) {
	var deaths []death
	for _, action := range []string{"pre-restore", "post-setup-namespaces"} {
		deaths = append(deaths, deathsAt(action, killBoth)...)
	}
	for _, d := range deaths {
		t.Run(d.name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			conf, m := d.conf(t)
			p := newRuncPod(t, conf, oneEnd, otherEnd)
			work(t, p.crews...)
			everything.make(t, p.ns)
			saved := queues(t, p.ns)
			for _, s := range p.members {
				mustSave(t, s)
			}
			images := imagesIn(t, p.members[0])
			p.moveTo(t, nstest.Fresh(t))
			err := p.members[0].load(t)
			t.Logf("the restore: %v", err)
			withoutYard(t)
			withoutGuard(t)
			compareImages(t, images, p.members[0])
			m.over(t)
			if err != nil {
				p.members[0].discard(t)
				withoutCgroups(t, p.members[0].id)
				mustLoad(t, p.members[0])
			}
			mustLoad(t, p.members[1])
			compareQueues(t, saved, queues(t, p.ns))
			work(t, p.crews...)
			accounted(t, p.ns, p.crews)
		})
	}
}

// withoutYard unmounts what a CRIU that was killed leaves in its working
// directory: all cgroup hierarchies, in which nobody must remove files.
func withoutYard(t *testing.T) {
	t.Helper()
	yards, _ := filepath.Glob(shared(t) + "/images-*/.criu.cgyard.*")
	for _, yard := range yards {
		inside, _ := filepath.Glob(yard + "/*")
		for _, mount := range append(inside, yard) {
			if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", mount, err)
			}
		}
		if err := os.Remove(yard); err != nil {
			t.Error(err)
		}
	}
}

func compareImages(t *testing.T, images map[string]string, sub subject) {
	t.Helper()
	now := imagesIn(t, sub)
	if diff := cmp.Diff(images, now); diff != "" {
		files, _ := filepath.Glob(dirOf(sub) + "/*ipc*")
		t.Errorf("images (-before +after):\n%s\nfiles: %q\n%s", diff, files, sub.logs())
	}
}
