// Package kernel is what ipc-cr asks of the kernel about the objects of an IPC
// namespace, System V message queues above all, as one interface with two
// implementations: Linux, the real one, and the in-memory kernel in package
// memkernel, for failures that cannot be provoked. Both pass the contract suite in
// package kerneltest.
//
// Everything here speaks the kernel's own terms (msgctl(2)): ids are msqids,
// uids and gids are those of the caller's user namespace. Translating them to
// the user namespace that owns the IPC namespace is the business of the kinds.
package kernel

// Queue is the state of one message queue, as msgctl(2) shows it in struct
// msqid_ds, without its messages.
type Queue struct {
	ID         int32
	Key        int32
	UID, GID   uint32
	CUID, CGID uint32
	Mode       uint32 // permission bits only
	CBytes     uint64 // bytes of payload now in the queue
	QNum       uint64 // messages now in the queue
	QBytes     uint64 // the queue's own limit on CBytes and on QNum
	LSPID      int32  // pid of the last msgsnd, 0 if none
	LRPID      int32  // pid of the last msgrcv, 0 if none (MSG_COPY does not count)
	STime      int64  // second of the last msgsnd, 0 if none
	RTime      int64  // second of the last msgrcv, 0 if none
	CTime      int64  // second of creation or of the last IPC_SET
}

// Attr is what IPC_SET can change of a queue (msgctl(2)).
type Attr struct {
	UID, GID uint32
	Mode     uint32
	QBytes   uint64
}

// Creator says as whom a queue is created: the kernel takes the creator from
// the effective ids of the caller, and nothing can change it later.
type Creator struct {
	UID, GID uint32
}

// Table describes the table of queues: MSG_INFO of msgctl(2). Messages and Bytes
// are good for a guess only: the call has 32 bits for each.
type Table struct {
	Queues   int    // queues in the namespace
	MaxIndex int    // highest index in use, for StatIndex; 0 also when there is none
	Messages uint32 // messages in all queues, modulo 2^32
	Bytes    uint32 // bytes in all queues, modulo 2^32
}

// Counts says how many objects of the other System V kinds live in the
// namespace: SEM_INFO of semctl(2) and SHM_INFO of shmctl(2).
type Counts struct {
	Semaphores   int // semaphore sets
	SharedMemory int // segments
}

// HeaderLen is the length of the mtype that precedes the payload in the buffers
// of Send and Copy: struct msgbuf of msgop(2) on a 64-bit kernel.
const HeaderLen = 8

// Kernel is the calls ipc-cr makes inside one IPC namespace. A value belongs to
// the thread that it was handed to by Space.Run and must not be used elsewhere.
// Errors wrap the errno, so that errors.Is(err, unix.EEXIST) works.
type Kernel interface {
	// Table is MSG_INFO. It needs no permission.
	Table() (Table, error)
	// OtherKinds counts what is in the namespace beside message queues. It
	// needs no permission.
	OtherKinds() (Counts, error)
	// POSIXQueues counts the POSIX message queues of the namespace that have a name
	// (mq_overview(7)): one that was unlinked and is still open is not seen. It
	// changes nothing, and needs no permission on any of them but CAP_SYS_ADMIN over
	// the namespace, which a caller that only lives in it may lack: EPERM. It takes
	// ten times as long as all other calls, and is not for stopped tasks to wait for.
	POSIXQueues() (int, error)
	// StatIndex is MSG_STAT_ANY: the queue at an index of the table. EINVAL if
	// the slot is empty. It needs no permission.
	StatIndex(index int, q *Queue) error
	// Stat is IPC_STAT: the queue with an id. EINVAL or EIDRM if there is none,
	// EACCES without read permission.
	Stat(id int32) (Queue, error)
	// Copy is msgrcv with MSG_COPY|IPC_NOWAIT: it copies message number index
	// (0 is the oldest) into buf, mtype (native byte order) and then payload,
	// and returns the payload's length. Nothing in the queue changes. ENOMSG
	// past the end, E2BIG if the payload is longer than len(buf)-HeaderLen,
	// EINVAL if the message is longer than the namespace's msgmax and the
	// buffer is not too short, ENOSYS on a kernel without CONFIG_CHECKPOINT_RESTORE, EACCES
	// without read permission. len(buf) must be at least HeaderLen.
	Copy(id int32, buf []byte, index int) (int, error)
	// Send is msgsnd with IPC_NOWAIT: buf holds mtype (native byte order) and
	// payload. EAGAIN when the queue is full, EINVAL for mtype < 1 or a payload
	// over msgmax, EACCES without write permission.
	Send(id int32, buf []byte) error
	// Create is msgget with IPC_CREAT|IPC_EXCL and mode, made as creator. It
	// returns the id. EEXIST if the key is taken, ENOSPC at msgmni. key 0 is
	// IPC_PRIVATE. A creator other than the caller needs CAP_SETUID, CAP_SETGID
	// and CAP_SETPCAP.
	Create(key int32, mode uint32, creator Creator) (int32, error)
	// SetNextID writes kernel.msg_next_id: the next queue created gets this id,
	// unless its slot is taken (the kernel then picks another one silently).
	// Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the namespace.
	SetNextID(id int32) error
	// Set is IPC_SET. EPERM for a QBytes above the namespace's msgmnb without
	// CAP_SYS_RESOURCE.
	Set(id int32, attr Attr) error
	// Remove is IPC_RMID.
	Remove(id int32) error
	// Sysctl reads a sysctl of the namespace, all its numbers, by its name as
	// sysctl(8) writes it: "kernel.msgmax", "kernel.sem", "fs.mqueue.msg_max".
	// ENOENT if this kernel does not have it.
	Sysctl(name string) ([]int64, error)
	// SetSysctl writes one that holds a single number. In a namespace of a
	// child user namespace it acts as that namespace's root, because the
	// kernel compares the writer's euid with it (ipc/ipc_sysctl.c,
	// ipc_permissions).
	SetSysctl(name string, value int64) error
	// MaySetSysctl reports whether SetSysctl of that name is allowed, and changes
	// nothing.
	MaySetSysctl(name string) error
	// MaySetNextID reports whether SetNextID is allowed, and changes nothing.
	MaySetNextID() error
	// MayRestore tells, before anything is made, by the caller's capabilities
	// whether SetNextID, Create as each of the creators, Send and Copy on a queue of mode 0, and Set and Remove of
	// what was created are allowed. Its error names the capability that is missing.
	MayRestore(creators []Creator) error
	// MayRemove reports whether Remove of a queue is allowed, as MayRestore does.
	MayRemove(q *Queue) error
	// IndexBits is how many low bits of an id are the index of its slot: 15, or
	// 24 on a kernel booted with ipcmni_extend (ipc/util.h).
	IndexBits() int
}

// Space is an IPC namespace in which calls can be made.
type Space interface {
	// Run calls fn on a thread inside the namespace and returns its error. It
	// may be called from several goroutines at once, one thread each.
	Run(fn func(Kernel) error) error
}
