package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
	"github.com/ipc-cr/ipc-cr/plugin/internal/walk"
)

// Feature is something that ipc-cr needs or can use.
type Feature struct {
	Name   string `json:"name"`
	For    string `json:"for"` // what does not work without it
	Needed bool   `json:"needed"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // why it is not OK
	Remedy string `json:"remedy,omitempty"`
}

// feature is a feature with the probe for it.
type feature struct {
	Feature
	probe func(*probing) error
}

var features = []feature{
	{Feature{Name: "IPC namespaces", For: "everything", Needed: true, Remedy: remedyRoot}, (*probing).namespace},
	{Feature{Name: "MSG_COPY", For: "checkpoint", Needed: true, Remedy: "a kernel with CONFIG_CHECKPOINT_RESTORE"}, (*probing).msgCopy},
	{Feature{Name: "choosing msqids", For: "restore", Needed: true, Remedy: "a kernel with CONFIG_CHECKPOINT_RESTORE, and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"}, (*probing).nextID},
	{Feature{Name: "all queues whatever their mode", For: "checkpoint and restore", Needed: true, Remedy: "CAP_IPC_OWNER: " + remedyRoot}, (*probing).closed},
	{Feature{Name: "limits", For: "restore of large messages and queues", Needed: true, Remedy: "a writable /proc/sys, and " + remedyRoot}, (*probing).limits},
	{Feature{Name: "other creators", For: "restore of queues of several users", Remedy: "CAP_SETUID, CAP_SETGID and CAP_SETPCAP, and a user namespace that maps more than one id"}, (*probing).creators},
	{Feature{Name: "BPF copy", For: "copying thousands of messages in one queue in milliseconds"}, (*probing).walk},
	{Feature{Name: "counting POSIX message queues", For: "a checkpoint's warning that they are not saved", Remedy: "CAP_SYS_ADMIN: " + remedyRoot}, (*probing).posix},
	{Feature{Name: "stopping tasks", For: "--freeze, and restore where tasks of other users live", Remedy: "CAP_SYS_PTRACE: " + remedyRoot}, (*probing).ptrace},
	{Feature{Name: "namespace ids", For: "telling namespaces apart for sure", Remedy: "Linux 6.18"}, (*probing).ids},
	{Feature{Name: "state directory", For: "putting limits back if ipc-cr and its guard are both killed", Remedy: "a directory /run/ipc-cr of root's with mode 0700, or XDG_RUNTIME_DIR"}, (*probing).state},
}

const remedyRoot = "run as root, or under unshare -Ur or podman unshare"

// Check tells what this kernel and these privileges allow, feature by feature.
// It tries everything in a fresh namespace and leaves nothing behind.
func Check() []Feature {
	p := &probing{}
	defer p.close()
	list := make([]Feature, len(features))
	for i := range features {
		f := features[i].Feature
		err := features[i].probe(p)
		f.OK = err == nil
		if f.OK {
			f.Remedy = ""
		} else {
			f.explain(err)
		}
		list[i] = f
	}
	return list
}

// explain says why there is no such feature.
func (f *Feature) explain(err error) {
	f.Detail = err.Error()
	if errors.Is(err, errNoNamespace) {
		f.Remedy = remedyRoot
	}
	if u, ok := errors.AsType[*walk.Unavailable](err); ok {
		f.Detail, f.Remedy = u.Detail(), u.Remedy
	}
}

// errNoNamespace: it may be possible or not.
var errNoNamespace = errors.New("not known: no fresh IPC namespace to try it in")

// probing is the namespace in which features are tried.
type probing struct {
	ns *nsenter.Namespace
}

func (p *probing) close() {
	if p.ns != nil {
		_ = p.ns.Close()
	}
}

// run runs a probe in the fresh namespace.
func (p *probing) run(fn func(kernel.Kernel) error) error {
	if p.ns == nil {
		return errNoNamespace
	}
	return linux.NewSpace(p.ns, nil).Run(fn)
}

func (p *probing) namespace() (err error) {
	p.ns, err = nsenter.New()
	return err
}

// msgCopy copies a message: the flag alone would not tell.
func (p *probing) msgCopy() error {
	return p.run(func(k kernel.Kernel) error {
		id, err := k.Create(0, 0o600, self())
		if err != nil {
			return err
		}
		message := make([]byte, kernel.HeaderLen+1)
		message[0], message[kernel.HeaderLen-1] = 1, 1 // mtype above 0 in either byte order
		if err := k.Send(id, message); err != nil {
			return err
		}
		if _, err := k.Copy(id, message, 0); err != nil {
			return fmt.Errorf("msgrcv with MSG_COPY: %w", err)
		}
		return nil
	})
}

// walk walks along a queue of one message.
func (p *probing) walk() error {
	program, err := walk.Open(nil)
	if err != nil {
		return err
	}
	err = p.run(func(k kernel.Kernel) error { return walkOne(k, program) })
	return errors.Join(err, program.Close())
}

func walkOne(k kernel.Kernel, walker kernel.Walker) error {
	id, err := k.Create(0, 0o600, self())
	if err != nil {
		return err
	}
	message := make([]byte, kernel.HeaderLen+1)
	message[0], message[kernel.HeaderLen-1], message[kernel.HeaderLen] = 1, 1, 'x'
	if err := k.Send(id, message); err != nil {
		return err
	}
	q, err := k.Stat(id)
	if err != nil {
		return err
	}
	w := walker.Walk()
	defer w.Release()
	copied := make([]byte, len(message))
	size, err := 0, w.Begin(&q)
	if err == nil {
		size, err = w.Next()
	}
	if err == nil && size == 1 {
		err = w.Read(copied)
	}
	if err == nil && !bytes.Equal(copied, message) {
		err = errors.New("a walk gave another message than was sent")
	}
	return err
}

func self() kernel.Creator {
	return kernel.Creator{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func (p *probing) nextID() error {
	return p.run(func(k kernel.Kernel) error {
		const wanted = 7<<24 | 12345 // a free slot, however many bits a slot has
		if err := k.SetNextID(wanted); err != nil {
			return err
		}
		id, err := k.Create(0, 0o600, self())
		if err == nil && id != wanted {
			return fmt.Errorf("msqid %d came out instead of %d", id, wanted)
		}
		return err
	})
}

func (p *probing) closed() error {
	return p.run(func(k kernel.Kernel) error {
		id, err := k.Create(0, 0, self())
		if err != nil {
			return err
		}
		_, err = k.Stat(id)
		return err
	})
}

func (p *probing) limits() error {
	return p.run(func(k kernel.Kernel) error {
		value, err := k.Sysctl("kernel.msgmax")
		if err != nil {
			return err
		}
		return k.SetSysctl("kernel.msgmax", value[0]+1)
	})
}

func (p *probing) creators() error {
	return p.run(func(k kernel.Kernel) error {
		me := self()
		return k.MayRestore([]kernel.Creator{{UID: me.UID + 1, GID: me.GID + 1}})
	})
}

func (p *probing) ptrace() error {
	held, err := linux.Capabilities()
	if err == nil && held&(1<<unix.CAP_SYS_PTRACE) == 0 {
		return fmt.Errorf("trace tasks of other users: %w", unix.EPERM)
	}
	return err
}

func (p *probing) posix() error {
	return p.run(func(k kernel.Kernel) error {
		_, err := k.POSIXQueues()
		return err
	})
}

func (p *probing) ids() error {
	if p.ns == nil {
		return errNoNamespace
	}
	id, err := p.ns.Identity()
	if err == nil && id.ID == 0 {
		return errors.New("the kernel has none: inode number and tasks are used instead")
	}
	return err
}

func (p *probing) state() error {
	dir, err := state.Default()
	if err != nil {
		return err
	}
	return dir.Close()
}
