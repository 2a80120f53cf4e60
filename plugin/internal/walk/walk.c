//go:build ignore

/*
 * Copies the messages of one System V message queue, the oldest first, by one
 * walk along its list. It is run by BPF_PROG_TEST_RUN on a thread that is in the
 * queue's IPC namespace, again and again until all is copied: each run fills one
 * window. No lock is taken, so nothing that is read is believed: a read that
 * fails, a length or a number beyond what the queue counts, a link that does not
 * lead back, ends the walk with a fault, and whoever runs it throws everything
 * away.
 *
 * The layout of the kernel's structures is declared only as far as it is used,
 * and corrected to that of the running kernel when the program is loaded (CO-RE).
 */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define KERNEL_LAYOUT __attribute__((preserve_access_index))

/* include/uapi/linux/bpf.h */
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_F_MMAPABLE (1U << 10)
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*bpf_loop)(__u32 times, void *step, void *context, __u64 flags) = (void *)181;

/* include/linux/types.h, xarray.h, idr.h */
struct list_head {
	struct list_head *next, *prev;
} KERNEL_LAYOUT;

struct xa_node {
	__u8 shift;
	void *slots[64];
} KERNEL_LAYOUT;

struct xarray {
	void *xa_head;
} KERNEL_LAYOUT;

struct idr {
	struct xarray idr_rt;
} KERNEL_LAYOUT;

/* include/linux/sched.h, nsproxy.h, ipc_namespace.h */
struct ipc_ids {
	struct idr ipcs_idr;
} KERNEL_LAYOUT;

struct ipc_namespace {
	struct ipc_ids ids[3];
} KERNEL_LAYOUT;

struct nsproxy {
	struct ipc_namespace *ipc_ns;
} KERNEL_LAYOUT;

struct task_struct {
	struct nsproxy *nsproxy;
} KERNEL_LAYOUT;

/* include/linux/ipc.h, msg.h; ipc/msg.c, msgutil.c */
struct kern_ipc_perm {
	_Bool deleted;
	int id;
} KERNEL_LAYOUT;

struct msg_queue {
	struct kern_ipc_perm q_perm;
	unsigned long q_cbytes, q_qnum;
	struct list_head q_messages;
} KERNEL_LAYOUT;

struct msg_msgseg {
	struct msg_msgseg *next;
} KERNEL_LAYOUT;

struct msg_msg {
	struct list_head m_list;
	long m_type;
	unsigned long m_ts;
	struct msg_msgseg *next;
} KERNEL_LAYOUT;

#define IPC_MSG_IDS 1 /* ipc/util.h */

/* Read a member. True if that failed. */
#define read(to, member) \
	bpf_probe_read_kernel((to), sizeof(*(to)), __builtin_preserve_access_index(&(member)))

#define kernel_size(type) __builtin_preserve_type_info(*(type *)0, 1 /* BPF_TYPE_SIZE */)
#define kernel_offset(type, member) __builtin_preserve_field_info(((type *)0)->member, 0 /* BPF_FIELD_BYTE_OFFSET */)
#define kernel_size_of(type, member) __builtin_preserve_field_info(((type *)0)->member, 1 /* BPF_FIELD_BYTE_SIZE */)

/* Why a walk ended early. The numbers are known to thread.go. */
enum fault {
	FAULT_NONE,
	FAULT_READ,    /* an address that cannot be read */
	FAULT_ABSENT,  /* no queue has this index, or another one */
	FAULT_COUNTS,  /* the queue's own counts are not the wanted ones */
	FAULT_LINK,    /* a link that does not lead back, or too early to the head */
	FAULT_NUMBER,  /* more messages than the queue counts, or fewer */
	FAULT_BYTES,   /* more bytes than the queue counts, or fewer */
	FAULT_TYPE,    /* a message type that no message can have */
	FAULT_SEGMENT, /* segments that end too early or too late */
};

enum stage {
	STAGE_BEGIN,
	STAGE_MESSAGE, /* between two messages */
	STAGE_PAYLOAD, /* within one */
	STAGE_END,
};

#define WINDOW (128 << 10)
#define PIECE 4096
#define HEAD 16 /* the type and the length of a message, in front of it */

/* What user space and the program tell each other, a slot for each thread. */
struct slot {
	/* The queue, set by user space for STAGE_BEGIN: */
	__u64 qnum, cbytes;
	__s32 id;
	__u32 index, page_size;

	/* How far the walk is: */
	__u32 stage, fault;
	__u32 filled; /* bytes of the window */

	/* For the program alone: */
	__u64 queue, head, first; /* the msg_queue, its list and the first message in that */
	__u64 previous, message;  /* the list_heads on both sides of where the walk is */
	__u64 segment;            /* what comes after the segment that is being copied */
	__u64 from;               /* where the next byte of it is */
	__u64 messages, bytes;    /* begun so far, this one included */
	__u64 payload_left, segment_left;

	__u8 window[WINDOW + PIECE];
};

struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*map_flags)[BPF_F_MMAPABLE];
	int (*max_entries)[1]; /* or more, set before loading */
	__u32 *key;
	struct slot *value;
} slots SEC(".maps");

#define GO_ON 0
#define STOP 1

static __attribute__((always_inline)) inline long fail(struct slot *s, enum fault why)
{
	s->fault = why;
	return STOP;
}

/* The entry for an index: include/linux/xarray.h, lib/xarray.c, xas_load(). */
static __attribute__((always_inline)) inline enum fault find(struct xarray *ids, __u32 index, __u64 *entry)
{
	__u32 fanout;
	struct xa_node *node;
	__u8 shift = 0;

	if (read(entry, ids->xa_head))
		return FAULT_READ;
	fanout = kernel_size_of(struct xa_node, slots) / sizeof(void *);
	for (int level = 0; level < 8; level++) {
		__u32 place;

		if ((*entry & 3) != 2) { /* no node: index 0 alone, at the top */
			if (level == 0 && index != 0)
				return FAULT_ABSENT;
			return *entry && !(*entry & 3) ? FAULT_NONE : FAULT_ABSENT;
		}
		if (*entry < PIECE) /* xa_is_node(): not an entry with a meaning of its own */
			return FAULT_ABSENT;
		node = (struct xa_node *)(*entry - 2);
		if (read(&shift, node->shift))
			return FAULT_READ;
		if (shift > 31)
			return FAULT_READ;
		place = index >> shift;
		if (level > 0)
			place &= fanout - 1;
		if (place >= fanout)
			return FAULT_ABSENT;
		if (bpf_probe_read_kernel(entry, sizeof(*entry),
					  (void *)__builtin_preserve_access_index(&node->slots) + place * sizeof(void *)))
			return FAULT_READ;
	}
	return FAULT_ABSENT;
}

/* The queue is the wanted one, with the wanted counts. */
static __attribute__((always_inline)) inline enum fault unchanged(struct slot *s)
{
	struct msg_queue *q = (void *)s->queue;
	unsigned long qnum, cbytes;
	_Bool deleted;
	__s32 id;

	if (read(&deleted, q->q_perm.deleted) || read(&id, q->q_perm.id) ||
	    read(&qnum, q->q_qnum) || read(&cbytes, q->q_cbytes))
		return FAULT_READ;
	if (deleted || id != s->id)
		return FAULT_ABSENT;
	if (qnum != s->qnum || cbytes != s->cbytes)
		return FAULT_COUNTS;
	return FAULT_NONE;
}

static __attribute__((always_inline)) inline enum fault begin(struct slot *s)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct nsproxy *nsproxy;
	struct ipc_namespace *ns;
	struct msg_queue *q;
	enum fault fault;
	__u64 entry;

	if (read(&nsproxy, task->nsproxy) || read(&ns, nsproxy->ipc_ns))
		return FAULT_READ;
	fault = find(__builtin_preserve_access_index(&ns->ids[IPC_MSG_IDS].ipcs_idr.idr_rt), s->index, &entry);
	if (fault)
		return fault;
	q = (void *)entry - kernel_offset(struct msg_queue, q_perm);
	s->queue = (__u64)q;
	fault = unchanged(s);
	if (fault)
		return fault;
	if (read(&s->first, q->q_messages.next))
		return FAULT_READ;
	s->head = (__u64)__builtin_preserve_access_index(&q->q_messages);
	s->previous = s->head;
	s->message = s->first;
	s->messages = 0;
	s->bytes = 0;
	s->stage = STAGE_MESSAGE;
	return FAULT_NONE;
}

/* The list has come back to its head. */
static __attribute__((always_inline)) inline long end(struct slot *s)
{
	struct msg_queue *q = (void *)s->queue;
	__u64 first, last;
	enum fault fault;

	if (s->messages != s->qnum)
		return fail(s, FAULT_NUMBER);
	if (s->bytes != s->cbytes)
		return fail(s, FAULT_BYTES);
	fault = unchanged(s);
	if (fault)
		return fail(s, fault);
	if (read(&first, q->q_messages.next) || read(&last, q->q_messages.prev))
		return fail(s, FAULT_READ);
	if (first != s->first || last != s->previous)
		return fail(s, FAULT_LINK);
	s->stage = STAGE_END;
	return STOP;
}

/* Begin the next message: its head goes to the window. */
static __attribute__((always_inline)) inline long message(struct slot *s)
{
	struct msg_msg *m;
	struct list_head links;
	__u64 size, segment, room;
	__u32 filled = s->filled;
	__s64 type;

	if (s->message == s->head)
		return end(s);
	if (s->messages >= s->qnum)
		return fail(s, FAULT_NUMBER);
	if (filled > WINDOW)
		return STOP;
	m = (void *)s->message - kernel_offset(struct msg_msg, m_list);
	if (read(&links, m->m_list) || read(&type, m->m_type) || read(&size, m->m_ts) || read(&segment, m->next))
		return fail(s, FAULT_READ);
	if ((__u64)links.prev != s->previous)
		return fail(s, FAULT_LINK);
	if (type < 1)
		return fail(s, FAULT_TYPE);
	if (size > s->cbytes - s->bytes)
		return fail(s, FAULT_BYTES);

	filled &= ~7U;
	*(__u64 *)(s->window + filled) = type;
	*(__u64 *)(s->window + filled + 8) = size;
	s->filled = filled + HEAD;
	s->previous = s->message;
	s->message = (__u64)links.next;
	s->messages++;
	s->bytes += size;
	s->segment = segment;
	s->from = (__u64)m + kernel_size(struct msg_msg);
	room = s->page_size - kernel_size(struct msg_msg); /* DATALEN_MSG */
	s->payload_left = size;
	s->segment_left = size < room ? size : room;
	s->stage = STAGE_PAYLOAD;
	return GO_ON;
}

/* Go to the next segment of the payload, or to the next message. */
static __attribute__((always_inline)) inline long segment(struct slot *s)
{
	struct msg_msgseg *seg = (void *)s->segment;
	__u64 room = s->page_size - kernel_size(struct msg_msgseg); /* DATALEN_SEG */

	if (!s->payload_left != !seg)
		return fail(s, FAULT_SEGMENT);
	if (!seg) {
		s->filled = (s->filled + 7) & ~7U;
		s->stage = STAGE_MESSAGE;
		return GO_ON;
	}
	if (read(&s->segment, seg->next))
		return fail(s, FAULT_READ);
	s->from = (__u64)seg + kernel_size(struct msg_msgseg);
	s->segment_left = s->payload_left < room ? s->payload_left : room;
	return GO_ON;
}

/* Copy a piece of the payload. */
static __attribute__((always_inline)) inline long payload(struct slot *s)
{
	__u64 n = s->segment_left;
	__u32 filled = s->filled;

	if (n > PIECE)
		n = PIECE;
	if (filled > WINDOW)
		return STOP;
	/* The verifier loses the bound where the compiler compares another copy of the register. */
	asm volatile("" : "+r"(n), "+r"(filled));
	if (n > PIECE || filled > WINDOW)
		return STOP;
	if (bpf_probe_read_kernel(s->window + filled, n, (void *)s->from))
		return fail(s, FAULT_READ);
	s->filled = filled + n;
	s->from += n;
	s->payload_left -= n;
	s->segment_left -= n;
	return GO_ON;
}

static long step(__u32 i, __u32 *key)
{
	struct slot *s = bpf_map_lookup_elem(&slots, key);
	long stop;

	if (!s)
		return STOP;
	if (s->stage == STAGE_MESSAGE) {
		stop = message(s);
		if (stop)
			return stop;
	}
	if (s->stage != STAGE_PAYLOAD)
		return STOP;
	if (s->segment_left) {
		stop = payload(s);
		if (stop)
			return stop;
	}
	return s->segment_left ? GO_ON : segment(s);
}

/* The context of a run is the number of the slot. */
SEC("syscall")
int walk(__u32 *context)
{
	__u32 key = *context;
	struct slot *s = bpf_map_lookup_elem(&slots, &key);

	if (!s)
		return 1;
	s->filled = 0;
	if (s->stage == STAGE_BEGIN) {
		s->fault = begin(s);
		if (s->fault)
			return 0;
	}
	bpf_loop(2 * WINDOW / HEAD, step, &key, 0); /* ends when the window is full */
	return 0;
}

char terms[] SEC("license") = "Dual MIT/GPL";
