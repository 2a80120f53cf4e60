package criuhook_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/criuhook"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var _ criu.Notify = (*criuhook.Notify)(nil)

var kinds = []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}

// idle is a process of a container, of a neighbour, or in the place of CRIU.
var idle = nstest.Program("criuhook.idle", func([]string) { os.Stdin.Read(make([]byte, 1)) })

// A rig is a namespace with a container's process in it, and somebody in the
// place of CRIU.
type rig struct {
	t         *testing.T
	ns        *nsenter.Namespace
	container *nstest.Process
	criu      *nstest.Process
	dir       string
	log       bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	nstest.Require(t, "root")
	r := &rig{t: t, dir: t.TempDir(), criu: nstest.Start(t, nil, idle)}
	r.into(nstest.Fresh(t))
	return r
}

// into puts a new container into a namespace.
func (r *rig) into(ns *nsenter.Namespace) {
	r.ns, r.container = ns, nstest.Start(r.t, ns, idle)
}

// run answers an action as CRIU asks for it: twice. It returns what was logged.
func (r *rig) run(action string) (said string, err error) {
	r.t.Helper()
	process, err := state.Lookup(r.criu.PID())
	if err != nil {
		r.t.Fatal(err)
	}
	e := criuhook.Event{Action: action, ImagesDir: r.dir, CRIU: process}
	if action != criuhook.PreRestore {
		e.InitPID = r.container.PID()
	}
	r.log.Reset()
	h := &criuhook.Hook{Kinds: kinds, Log: &r.log}
	err = h.Run(r.t.Context(), e)
	said = r.log.String()
	r.log.Reset()
	again := h.Run(r.t.Context(), e)
	if fmt.Sprint(again) != fmt.Sprint(err) || r.log.Len() > 0 {
		r.t.Errorf("%s once more: %v and %q, was %v", action, again, r.log.String(), err)
	}
	return said, err
}

func (r *rig) must(action string) string {
	r.t.Helper()
	said, err := r.run(action)
	if err != nil {
		r.t.Fatal(err)
	}
	return said
}

// dump does what CRIU does between pre-dump and post-dump: the same files.
func (r *rig) dump(number uint32) {
	r.t.Helper()
	_, err := plugin.Checkpoint(r.t.Context(), plugin.CheckpointOptions{
		Kinds: kinds, Namespace: r.ns, Dir: r.dir, Number: number, Force: true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.dir, images.ManifestName(number))); err != nil {
		r.t.Fatal(err)
	}
}

// nextCRIU is another CRIU run.
func (r *rig) nextCRIU() { r.criu = nstest.Start(r.t, nil, idle) }

func (r *rig) there(name string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, name))
	return err == nil
}

func inside(t *testing.T, ns *nsenter.Namespace, fn func(kernel.Kernel) error) {
	t.Helper()
	if err := linux.NewSpace(ns, nil).Run(fn); err != nil {
		t.Fatal(err)
	}
}

// fill makes queues with keys from 1 on, and that many messages in each.
func fill(t *testing.T, ns *nsenter.Namespace, queues, messages int) {
	t.Helper()
	inside(t, ns, func(k kernel.Kernel) error {
		for q := range queues {
			id, err := k.Create(int32(q+1), 0o600, kernel.Creator{})
			for range messages {
				err = errors.Join(err, k.Send(id, message(q)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func message(q int) []byte {
	b := make([]byte, kernel.HeaderLen, kernel.HeaderLen+8)
	b[0] = 1
	return append(b, fmt.Sprintf("queue %d", q)...)
}

func held(t *testing.T, ns *nsenter.Namespace) (queues int, messages int64) {
	t.Helper()
	inside(t, ns, func(k kernel.Kernel) error {
		table, err := k.Table()
		queues, messages = table.Queues, int64(table.Messages)
		return err
	})
	return queues, messages
}

// stateOf returns the letter of a process's state.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// A container with a namespace of its own, there and back.
func TestPrivate(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 3, 5)
	if said := r.must(criuhook.PreDump); said != "" {
		t.Errorf("pre-dump says %q", said)
	}
	r.dump(9)
	if said := r.must(criuhook.PostDump); said != "ipc-cr: post-dump: 3 queues, 15 messages verified\n" {
		t.Errorf("post-dump says %q", said)
	}
	if !r.there("ipc-cr-9.json") {
		t.Fatal("no JSON file")
	}
	r.nextCRIU()
	r.into(nstest.Fresh(t))
	r.must(criuhook.PreRestore)
	if r.there("ipcns-msg-9.img") || !r.there("ipcns-msg-9.img"+images.AsideSuffix) {
		t.Error("the image is not set aside")
	}
	said := r.must(criuhook.PostSetupNamespaces)
	if said != "ipc-cr: post-setup-namespaces: 3 queues, 15 messages: 3 made\n" {
		t.Errorf("post-setup-namespaces says %q", said)
	}
	if queues, messages := held(t, r.ns); queues != 3 || messages != 15 {
		t.Errorf("%d queues, %d messages", queues, messages)
	}
	if !r.there("ipcns-msg-9.img") || r.there("ipcns-msg-9.img"+images.AsideSuffix) {
		t.Error("the image is not put back")
	}
}

// Neighbours are frozen from pre-dump until post-dump.
func TestShared(t *testing.T) {
	r := newRig(t)
	neighbour := nstest.Start(t, r.ns, idle)
	fill(t, r.ns, 1, 2)
	if said := r.must(criuhook.PreDump); !strings.Contains(said, "of neighbours stopped") {
		t.Errorf("pre-dump says %q", said)
	}
	if s := stateOf(t, neighbour.PID()); s != "t" {
		t.Errorf("the neighbour is in state %s", s)
	}
	if s := stateOf(t, r.container.PID()); s == "t" {
		t.Error("the container is stopped")
	}
	r.dump(1)
	if said := r.must(criuhook.PostDump); !strings.Contains(said, "1 queue, 2 messages verified; ") || !strings.Contains(said, "frozen for") {
		t.Errorf("post-dump says %q", said)
	}
	if s := stateOf(t, neighbour.PID()); s == "t" {
		t.Error("the neighbour is still stopped")
	}
}

// Whatever ends CRIU lets the neighbours go.
func TestKilledCRIU(t *testing.T) {
	r := newRig(t)
	neighbour := nstest.Start(t, r.ns, idle)
	fill(t, r.ns, 1, 2)
	r.must(criuhook.PreDump)
	r.criu.Kill()
	await(t, "the neighbour to run", func() bool { return stateOf(t, neighbour.PID()) != "t" })
	r.dump(1)
	r.nextCRIU()
	r.must(criuhook.PreRestore)
	r.criu.Kill()
	await(t, "the image", func() bool { return r.there("ipcns-msg-1.img") })
}

// A copy that is not what the namespace holds fails the dump, and names the queue.
func TestTorn(t *testing.T) {
	for name, tear := range map[string]func(kernel.Kernel) error{
		"queue 0 (key 0x1): 2 messages of 14 bytes in all in the image, 3 of 21": func(k kernel.Kernel) error { return k.Send(0, message(0)) },
		"queue 0 (key 0x1): is in the image, and not in the namespace":           func(k kernel.Kernel) error { return k.Remove(0) },
		"queue 0 (key 0x1): its mode is another": func(k kernel.Kernel) error {
			return k.Set(0, kernel.Attr{Mode: 0o640, QBytes: 16384})
		},
		"queue 1 (key 0x77): is in the namespace, and not in the image": func(k kernel.Kernel) error {
			_, err := k.Create(0x77, 0o600, kernel.Creator{})
			return err
		},
		"sysctl kernel.msgmax: 8192 in the image": func(k kernel.Kernel) error { return k.SetSysctl("kernel.msgmax", 9000) },
	} {
		r := newRig(t)
		neighbour := nstest.Start(t, r.ns, idle)
		fill(t, r.ns, 1, 2)
		r.must(criuhook.PreDump)
		r.dump(1)
		inside(t, r.ns, tear)
		_, err := r.run(criuhook.PostDump)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "post-dump: ") {
			t.Errorf("%v, want %s", err, name)
		}
		if r.there("ipc-cr-1.json") {
			t.Error("a JSON file")
		}
		await(t, "the neighbour to run", func() bool { return stateOf(t, neighbour.PID()) != "t" })
	}
}

// forge changes what is remembered of an action.
func (r *rig) forge(action, old, to string) {
	r.t.Helper()
	dir, err := state.Default()
	if err != nil {
		r.t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(names, func(name string) bool {
		return strings.Contains(name, fmt.Sprintf("-%d-", r.criu.PID())) && strings.HasSuffix(name, "-"+action)
	})
	if i < 0 {
		r.t.Fatalf("nothing is remembered of %s: %q", action, names)
	}
	content, err := dir.Read(names[i])
	if err == nil && !bytes.Contains(content, []byte(old)) {
		err = fmt.Errorf("%s is %s", names[i], content)
	}
	if err == nil {
		err = dir.Replace(names[i], bytes.Replace(content, []byte(old), []byte(to), 1))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// What an older dump left in the directory, and CRIU did not overwrite, is gone.
func TestOlderDump(t *testing.T) {
	r := newRig(t)
	fill(t, r.ns, 2, 1)
	r.dump(1)
	r.dump(7)
	old := time.Now().Add(-time.Minute)
	entries, _ := os.ReadDir(r.dir)
	for _, entry := range entries {
		if err := os.Chtimes(filepath.Join(r.dir, entry.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "ipc-cr-1.json"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.into(nstest.Fresh(t)) // without queues
	r.must(criuhook.PreDump)
	now := time.Now() // CRIU writes this, and no image of queues
	if err := os.Chtimes(filepath.Join(r.dir, "ipcns-var-1.img"), now, now); err != nil {
		t.Fatal(err)
	}
	r.must(criuhook.PostDump)
	if r.there("ipcns-msg-1.img") || !r.there("ipcns-msg-7.img") {
		t.Error("the old image of queues is there, or that of another namespace is not")
	}
	r.nextCRIU()
	r.into(nstest.Fresh(t))
	os.Remove(filepath.Join(r.dir, "ipcns-var-7.img"))
	os.Remove(filepath.Join(r.dir, "ipcns-msg-7.img"))
	r.must(criuhook.PreRestore)
	r.must(criuhook.PostSetupNamespaces)
	if queues, _ := held(t, r.ns); queues != 0 {
		t.Errorf("%d queues", queues)
	}
}

// A container without queues leaves no trace.
func TestNothing(t *testing.T) {
	r := newRig(t)
	if said := r.must(criuhook.PreDump); said != "" {
		t.Errorf("pre-dump says %q", said)
	}
	r.dump(1)
	if said := r.must(criuhook.PostDump); said != "" || r.there("ipc-cr-1.json") {
		t.Errorf("post-dump says %q", said)
	}
	r.nextCRIU()
	for _, action := range []string{criuhook.PreRestore, criuhook.PostSetupNamespaces} {
		if said := r.must(action); said != "" {
			t.Errorf("%s says %q", action, said)
		}
	}
}
