package criuhook_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// smallRun gives this process a /run of its own with little room.
func smallRun() {
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("run", "/run", "tmpfs", 0, "mode=0755,size=64k"),
		os.Mkdir("/run/ipc-cr", 0o700),
	} {
		if err != nil {
			panic(err)
		}
	}
}

func fillRun() {
	if err := os.WriteFile("/run/large", make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		panic(err)
	}
}

// dumpedInFull CRIU DIR CONTAINER answers pre-dump, and when it is told so, post-dump
// where /run has been filled meanwhile.
var dumpedInFull = nstest.Program("criuhook.fulldump", func(args []string) {
	smallRun()
	criu, _ := strconv.Atoi(args[0])
	container, _ := strconv.Atoi(args[2])
	process, err := state.Lookup(criu)
	if err != nil {
		panic(err)
	}
	h := &criuhook.Hook{Kinds: kinds, Log: io.Discard}
	in := bufio.NewReader(os.Stdin)
	for _, action := range []string{criuhook.PreDump, criuhook.PostDump} {
		fmt.Println(h.Run(context.Background(), criuhook.Event{Action: action, ImagesDir: args[1], InitPID: container, CRIU: process}))
		fillRun()
		_, _ = in.ReadString('\n')
	}
})

// What pre-dump has noted is read where /run is full by then: a neighbour that could not
// be stopped and has used a queue fails the dump all the same.
func TestRunFilledDuringDump(t *testing.T) {
	for _, uses := range []bool{false, true} {
		r := newRig(t)
		neighbour := nstest.Start(t, r.ns, idle)
		trace(t, neighbour.PID())
		fill(t, r.ns, 1, 2)
		anotherSecond(t)
		p := nstest.StartIn(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, dumpedInFull,
			strconv.Itoa(r.criu.PID()), r.dir, strconv.Itoa(r.container.PID()))
		answer := func() string {
			line, err := p.Stdout.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			return line
		}
		if got := answer(); got != "<nil>\n" {
			t.Fatalf("pre-dump: %s", got)
		}
		r.dump(1)
		if uses {
			inside(t, r.ns, passAround)
		}
		fmt.Fprintln(p.Stdin)
		if got := answer(); uses != strings.Contains(got, "queue 0 (key 0x1): was in use while CRIU copied it") || !uses && got != "<nil>\n" {
			t.Errorf("uses %t: post-dump: %s", uses, got)
		}
	}
}

// restoredInFull CRIU DIR CONTAINER answers the actions of a restore where /run has no
// room for another file.
var restoredInFull = nstest.Program("criuhook.full", func(args []string) {
	smallRun()
	fillRun()
	criu, _ := strconv.Atoi(args[0])
	container, _ := strconv.Atoi(args[2])
	process, err := state.Lookup(criu)
	if err != nil {
		panic(err)
	}
	h := &criuhook.Hook{Kinds: kinds, Log: os.Stdout}
	for _, action := range []string{criuhook.PreRestore, criuhook.PostSetupNamespaces, criuhook.PostResume} {
		err := h.Run(context.Background(), criuhook.Event{Action: action, ImagesDir: args[1], InitPID: container, CRIU: process})
		fmt.Println(action, err)
	}
	fmt.Println("done")
})

// A full /run is no reason to refuse the restore of a container with a namespace of its
// own, which CRIU can do: what that loses is said.
func TestRestoreWithFullRun(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 2, 2)
	r.must(criuhook.PreDump)
	r.dump(1)
	r.must(criuhook.PostDump)
	r.nextCRIU()
	r.into(nstest.Fresh(t))
	p := nstest.StartIn(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, restoredInFull,
		strconv.Itoa(r.criu.PID()), r.dir, strconv.Itoa(r.container.PID()))
	var said strings.Builder
	for line := ""; line != "done\n"; said.WriteString(line) {
		var err error
		if line, err = p.Stdout.ReadString('\n'); err != nil {
			t.Fatalf("%v after %q", err, said.String())
		}
	}
	for _, want := range []string{
		"no space left on device: CRIU restores the queues itself: ",
		"\npre-restore <nil>\npost-setup-namespaces <nil>\npost-resume <nil>\n",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("said %q, want %q", said.String(), want)
		}
	}
	if !r.there("ipcns-msg-1.img") {
		t.Error("CRIU's image was set aside, and nobody restores it")
	}
}
