package criuhook

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/eventlog"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// Whether a container is left running after its checkpoint CRIU tells nobody
// before it has ended. A later restore has to know, so a small process of the same
// binary waits for that, looks, and notes it.

// afterName is argv[0] of that process, by which the binary knows what it is to be.
const afterName = "ipc-cr-after"

// afterFD is the pipe from which it reads what it is about.
const afterFD = 3

// after is what it is told.
type after struct {
	CRIU      state.Process       `json:"criu"`
	Init      state.Process       `json:"init"`
	Container string              `json:"container"` // its id, for the log
	Taken     plugin.Checkpointed `json:"taken"`
}

// init makes the process one that waits, if it was started as such.
func init() {
	if len(os.Args) != 1 || os.Args[0] != afterName {
		return
	}
	var a after
	in := os.NewFile(afterFD, "what to wait for")
	if in == nil {
		os.Exit(1) // started by hand
	}
	err := json.NewDecoder(bufio.NewReader(in)).Decode(&a)
	_ = in.Close()
	if err == nil {
		err = a.wait()
	}
	if err != nil {
		a.log(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// log logs why nothing can be noted: nobody waits for this process.
func (a *after) log(why error) {
	_ = eventlog.WriteHere(eventlog.Entry{
		Action: "after-dump", Container: a.Container, Init: a.Init.PID, CRIU: a.CRIU.PID, Dir: a.Taken.Dir,
		Error: unknown + why.Error(),
	})
}

// unknown is what is lost without this process.
const unknown = "whether the container is left running will not be known to a restore in place, which takes it for stopped: "

// watch starts the process that waits for CRIU's end after a dump.
func (r *run) watch(number uint32) error {
	a := after{CRIU: r.CRIU, Container: eventlog.Container(r.InitPID, r.CRIU.PID, r.dirName())}
	var err error
	if a.Init, err = state.Lookup(r.InitPID); err != nil {
		return fmt.Errorf("the container, process %d: %w", r.InitPID, err)
	}
	if a.Taken, err = r.taken(number); err != nil {
		return err
	}
	if err := a.start(); err != nil {
		r.warn(unknown+"%v", err)
	}
	return nil
}

// taken is what the JSON file tells of the checkpoint.
func (r *run) taken(number uint32) (c plugin.Checkpointed, err error) {
	dir, err := r.images()
	if err != nil {
		return c, err
	}
	defer dir.Close()
	file, _, err := dir.Open(images.ManifestName(number))
	if err != nil {
		return c, err
	}
	defer file.Close()
	m, err := images.ReadManifest(file.Name(), file)
	if err != nil {
		return c, err
	}
	return plugin.Checkpointed{Namespace: m.Namespace, Boottime: m.Boottime, Created: m.Created, Dir: r.dirName()}, nil
}

// start starts it in a session of its own, with nothing open that somebody could
// wait for.
func (a *after) start() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	process, err := os.StartProcess("/proc/self/exe", []string{afterName}, &os.ProcAttr{
		Dir: "/", Env: []string{"GODEBUG=containermaxprocs=0"},
		Files: []*os.File{null, null, null, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(ours).Encode(a), process.Release())
}

// wait waits for what is to be noted, and notes it.
func (a *after) wait() error {
	if err := awaitEnd(a.CRIU); err != nil {
		return err
	}
	if !a.livesOn() {
		return nil
	}
	a.Taken.LeftRunning = true
	return plugin.NoteCheckpoint(context.Background(), a.Taken)
}

// awaitEnd waits until a process has ended.
func awaitEnd(p state.Process) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil || !p.Alive() {
		return nil // it has ended, and its pid may be another's by now
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// settling is how long a container is looked at after CRIU's end. CRIU kills and
// does not wait; a task that was killed is seen to be at once, but may take long to
// end, because all of its memory has to be freed.
const settling = 10 * time.Millisecond

// livesOn reports whether the container's first process runs on after CRIU's end.
func (a *after) livesOn() bool {
	for deadline := time.Now().Add(settling); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !a.Init.Alive() || doomed(a.Init.PID) {
			return false
		}
	}
	return true
}

// doomed reports whether a process is ending, or is going to: PF_EXITING of
// include/linux/sched.h in field 9 of proc_pid_stat(5), or SIGKILL pending in
// proc_pid_status(5). What cannot be read is not.
func doomed(pid int) bool {
	const exiting, flagsField = 0x4, 6 // the state, field 3, is the first after the name
	dir := "/proc/" + strconv.Itoa(pid)
	stat, _ := os.ReadFile(dir + "/stat")
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) > flagsField {
		if flags, err := strconv.ParseUint(string(fields[flagsField]), 10, 64); err == nil && flags&exiting != 0 {
			return true
		}
	}
	status, _ := os.ReadFile(dir + "/status")
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(name) != "SigPnd" && string(name) != "ShdPnd" {
			continue
		}
		pending, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err == nil && pending&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
