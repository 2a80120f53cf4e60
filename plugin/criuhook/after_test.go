package criuhook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/record"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

var idleInside = nstest.Program("criuhook.idle.inside", func([]string) { os.Stdin.Read(make([]byte, 1)) })

// When CRIU has ended it is noted whether the container lives on.
func TestLeftRunning(t *testing.T) {
	nstest.Require(t, "root")
	for _, stays := range []bool{true, false} {
		ns := nstest.Fresh(t)
		id, err := ns.Identity()
		if err != nil {
			t.Fatal(err)
		}
		criu, container := nstest.Start(t, nil, idleInside), nstest.Start(t, ns, idleInside)
		a := after{CRIU: processOf(t, criu), Init: processOf(t, container), Taken: plugin.Checkpointed{
			Namespace: images.Source{BootID: id.BootID, ID: id.ID, Inode: id.Inode}, Boottime: 42,
		}}
		for _, task := range id.Tasks {
			a.Taken.Namespace.Tasks = append(a.Taken.Namespace.Tasks, images.SourceTask{PID: task.PID, Start: task.Start})
		}
		ended := make(chan error)
		go func() { ended <- a.wait() }()
		if !stays {
			container.Kill()
		}
		select {
		case err := <-ended:
			t.Fatalf("ended before CRIU: %v", err)
		default:
		}
		criu.Kill()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if got := leftRunning(t, id); got != stays {
			t.Errorf("left running %t, want %t", got, stays)
		}
	}
}

func processOf(t *testing.T, p *nstest.Process) state.Process {
	t.Helper()
	process, err := state.Lookup(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	return process
}

func leftRunning(t *testing.T, id nsenter.Identity) bool {
	t.Helper()
	dir, err := state.Default()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r, err := record.Read(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	return r != nil && r.WasLeftRunning(42)
}

// A task that was killed is doomed, one that is stopped is not.
func TestDoomed(t *testing.T) {
	p := nstest.Start(t, nil, idleInside)
	if doomed(p.PID()) {
		t.Error("a living process is doomed")
	}
	if doomed(os.Getpid()) || doomed(1<<30) {
		t.Error("this process, or none, is doomed")
	}
}

// What is remembered is of one CRIU, one action and one directory, and goes when
// that CRIU has.
func TestKept(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	criu := nstest.Start(t, nil, idleInside)
	r := &run{state: dir, Event: Event{Action: PreDump, ImagesDir: t.TempDir(), CRIU: processOf(t, criu)}}
	r.kept.Since = 17
	if err := r.remember(nil); err != nil {
		t.Fatal(err)
	}
	if k, found, err := r.recall(PreDump); err != nil || !found || k.Since != 17 {
		t.Errorf("%+v, %t, %v", k, found, err)
	}
	if _, found, _ := r.recall(PostDump); found {
		t.Error("found another action's")
	}
	r.ImagesDir = t.TempDir()
	if _, found, _ := r.recall(PreDump); found {
		t.Error("found another directory's")
	}
	sweep(dir, namesIn(t, dir))
	if names, _ := dir.Names(); len(names) != 1 {
		t.Errorf("swept while CRIU lives: %q", names)
	}
	criu.Kill()
	sweep(dir, namesIn(t, dir))
	if names, _ := dir.Names(); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
}

func namesIn(t *testing.T, dir *state.Dir) []string {
	t.Helper()
	names, err := dir.Names()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The process that waits for CRIU's end says what it could not note.
func TestAfterLogs(t *testing.T) {
	nstest.Require(t, "root")
	criu, container := nstest.Start(t, nil, idleInside), nstest.Start(t, nil, idleInside)
	a := after{CRIU: processOf(t, criu), Init: processOf(t, container), Container: "the id"} // of no checkpoint
	began := time.Now().Truncate(time.Millisecond)
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	criu.Kill()
	var entries []LogEntry
	for deadline := time.Now().Add(20 * time.Second); len(entries) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is logged")
		}
		log, err := ReadLog()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range log.Entries {
			if e.CRIU == a.CRIU.PID && e.Init == a.Init.PID && !e.Time.Before(began) {
				entries = append(entries, e)
			}
		}
	}
	if e := entries[0]; e.Action != "after-dump" || e.Container != "the id" || !strings.HasPrefix(e.Error, unknown) || len(e.Error) == len(unknown) {
		t.Errorf("logged %+v", e)
	}
}
