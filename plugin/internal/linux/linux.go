// Package linux is the real kernel behind package kernel's interface: System V
// message queues and sysctls of one IPC namespace.
package linux

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/plugin/internal/creds"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/sysv"
)

// Space is an IPC namespace of the running kernel.
type Space struct {
	ns *nsenter.Namespace
	// root is the namespace's own root as the caller sees it, where that is
	// somebody else than the caller's.
	root *kernel.Creator
}

var _ kernel.Space = (*Space)(nil)

// NewSpace makes a Space of an open namespace. owner may be nil when nothing
// is going to be written to the sysctls of a child user namespace.
func NewSpace(ns *nsenter.Namespace, owner *nsenter.Owner) *Space {
	s := &Space{ns: ns}
	if owner == nil || owner.Own {
		return s
	}
	uid, uidOK := owner.UIDs.Out(0)
	gid, gidOK := owner.GIDs.Out(0)
	if uidOK && gidOK {
		s.root = &kernel.Creator{UID: uid, GID: gid}
	}
	return s
}

// Run implements kernel.Space with nsenter's Run.
func (s *Space) Run(fn func(kernel.Kernel) error) error {
	return s.ns.Run(func() error { return s.Here(fn) })
}

// Here is Run for a caller that is on a thread of the namespace's already, as
// inside nsenter's Run.
func (s *Space) Here(fn func(kernel.Kernel) error) error {
	t := &thread{space: s, root: s.root, nextID: -1, self: kernel.Creator{
		UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid()),
	}}
	defer t.close()
	return fn(t)
}

// thread is the kernel as one thread inside the namespace reaches it.
type thread struct {
	space  *Space
	root   *kernel.Creator
	self   kernel.Creator
	nextID int // descriptor of msg_next_id, -1 until first used

	sysctls map[string]int // descriptors: a checkpoint reads each sysctl twice
	writers map[string]int // those opened for writing
}

func (t *thread) close() {
	if t.nextID >= 0 {
		_ = unix.Close(t.nextID)
	}
	for _, fds := range []map[string]int{t.sysctls, t.writers} {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

func (t *thread) Table() (kernel.Table, error) {
	var info sysv.MsgInfo
	maxIndex, err := sysv.Info(&info)
	if err != nil {
		return kernel.Table{}, err
	}
	return kernel.Table{
		Queues: int(info.Pool), MaxIndex: maxIndex,
		Messages: info.Map, Bytes: info.Tql,
	}, nil
}

func (t *thread) OtherKinds() (kernel.Counts, error) {
	var sem sysv.SemInfoDS
	if err := sysv.SemInfo(&sem); err != nil {
		return kernel.Counts{}, err
	}
	var shm sysv.ShmInfoDS
	if err := sysv.ShmInfo(&shm); err != nil {
		return kernel.Counts{}, err
	}
	return kernel.Counts{Semaphores: int(sem.Usz), SharedMemory: int(shm.UsedIDs)}, nil
}

func (t *thread) StatIndex(index int, q *kernel.Queue) error {
	var ds sysv.MsqidDS
	id, err := sysv.StatAny(index, &ds)
	if err == nil {
		describe(q, id, &ds)
	}
	return err
}

func (t *thread) Stat(id int32) (kernel.Queue, error) {
	var ds sysv.MsqidDS
	if err := sysv.Stat(id, &ds); err != nil {
		return kernel.Queue{}, err
	}
	var q kernel.Queue
	describe(&q, id, &ds)
	return q, nil
}

func describe(q *kernel.Queue, id int32, ds *sysv.MsqidDS) {
	*q = kernel.Queue{
		ID: id, Key: ds.Perm.Key,
		UID: ds.Perm.UID, GID: ds.Perm.GID, CUID: ds.Perm.CUID, CGID: ds.Perm.CGID,
		Mode:   ds.Perm.Mode & 0o777,
		CBytes: ds.CBytes, QNum: ds.QNum, QBytes: ds.QBytes,
		LSPID: ds.LSPID, LRPID: ds.LRPID,
		STime: ds.STime, RTime: ds.RTime, CTime: ds.CTime,
	}
}

func (t *thread) Copy(id int32, buf []byte, index int) (int, error) {
	n, errno := sysv.Copy(id, buf, index)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

func (t *thread) Send(id int32, buf []byte) error { return sysv.Send(id, buf) }

func (t *thread) Create(key int32, mode uint32, creator kernel.Creator) (id int32, err error) {
	get := func() error {
		id, err = sysv.Get(key, sysv.IPCCreat|sysv.IPCExcl|mode&0o777)
		return err
	}
	if creator == t.self {
		return id, get()
	}
	return id, creds.As(creator.UID, creator.GID, get)
}

func (t *thread) Set(id int32, attr kernel.Attr) error {
	return sysv.Set(id, &sysv.MsqidDS{
		Perm:   sysv.IPCPerm{UID: attr.UID, GID: attr.GID, Mode: attr.Mode},
		QBytes: attr.QBytes,
	})
}

func (t *thread) Remove(id int32) error { return sysv.Remove(id) }

func (t *thread) MaySetNextID() error { return t.openNextID() }

func (t *thread) SetNextID(id int32) error {
	if err := t.openNextID(); err != nil {
		return err
	}
	return writeSysctl(t.nextID, nextIDName, int64(id))
}

func (t *thread) openNextID() error {
	if t.nextID >= 0 {
		return nil
	}
	fd, err := unix.Open(sysctlPath(nextIDName), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open sysctl %s for writing (needs a writable /proc/sys, and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the namespace): %w", nextIDName, err)
	}
	t.nextID = fd
	return nil
}
