// The floor: the fastest plain way, one thread, to copy a namespace's queues to a file and to
// make them again. The system calls that the work needs and no others, a buffer of exactly the
// right size (the plan says each message's), messages received straight into the output and
// sent straight from the input, no format to encode or parse, no check, no checksum, no fsync.
//
// The file: three limits, then blocks. A block is its length (u64) and whole items: a queue's
// struct head, or a message: size (u64), mtype, payload, padded to 8.
#include "bench.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Large enough that write(2) costs nothing a message, small enough to stay in the L2 cache.
#define BLOCK (128 << 10)

// A mode that lets nobody send or receive.
#define CLOSED 0111

struct head {
	int32_t key, id;
	uint32_t uid, gid, mode, qnum;
	uint64_t qbytes;
};

struct limits {
	unsigned long msgmax, msgmnb, msgmni;
};

// struct block is the output or input: room bytes at data, filled up to end; the first 8 are
// the block's length.
struct block {
	int fd;
	size_t room, end;
	char *data;
};

static size_t message_room(size_t size)
{
	return sizeof(uint64_t) + MTYPE_SIZE + ((size + 7) & ~(size_t)7);
}

static struct block block_new(int fd, const struct plan *plan)
{
	struct block b = { .fd = fd, .room = BLOCK, .end = sizeof(uint64_t) };
	size_t largest = sizeof(uint64_t) + message_room(plan->msgmax);

	if (b.room < largest)
		b.room = largest;
	b.data = malloc(b.room);
	if (!b.data)
		die("malloc");
	return b;
}

static void block_free(struct block *b)
{
	close(b->fd);
	free(b->data);
}

static void block_flush(struct block *b)
{
	*(uint64_t *)b->data = b->end;
	write_all(b->fd, b->data, b->end);
	b->end = sizeof(uint64_t);
}

static char *block_reserve(struct block *b, size_t size)
{
	char *at;

	if (b->room - b->end < size)
		block_flush(b);
	at = b->data + b->end;
	b->end += size;
	return at;
}

static unsigned long limit_read(const char *name)
{
	char text[32] = "";
	int fd = open_in("/proc/sys/kernel", name, O_RDONLY);

	if (read(fd, text, sizeof(text) - 1) < 0)
		die(name);
	close(fd);
	return strtoul(text, NULL, 10);
}

static const uint32_t *copy_messages(struct block *b, int id, unsigned n, const uint32_t *sizes)
{
	for (unsigned i = 0; i < n; i++) {
		char *at = block_reserve(b, message_room(sizes[i]));
		ssize_t size = msgrcv(id, at + sizeof(uint64_t), sizes[i], i, MSG_COPY | IPC_NOWAIT);

		if (size < 0)
			die("msgrcv");
		*(uint64_t *)at = size;
	}
	return sizes + n;
}

static const uint32_t *copy_queue(struct block *b, int id, const struct msqid_ds *ds, const uint32_t *sizes)
{
	struct head *h = (struct head *)block_reserve(b, sizeof(*h));

	*h = (struct head){ ds->msg_perm.__key, id,	       ds->msg_perm.uid, ds->msg_perm.gid,
			    ds->msg_perm.mode,	ds->msg_qnum, ds->msg_qbytes };
	return copy_messages(b, id, ds->msg_qnum, sizes);
}

static void copy(const char *dir, const struct plan *plan)
{
	const uint32_t *sizes = plan_sizes(plan);
	struct msginfo info;
	int last = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);
	struct limits l = { limit_read("msgmax"), limit_read("msgmnb"), limit_read("msgmni") };
	struct block b = block_new(open_in(dir, "floor", O_WRONLY | O_CREAT | O_TRUNC), plan);

	write_all(b.fd, &l, sizeof(l));
	for (int i = 0; i <= last; i++) {
		struct msqid_ds ds;
		int id = msgctl(i, MSG_STAT, &ds);

		if (id < 0 && errno == EINVAL)
			continue;
		if (id < 0)
			die("msgctl MSG_STAT");
		sizes = copy_queue(&b, id, &ds, sizes);
	}
	block_flush(&b);
	block_free(&b);
}

static int block_read(struct block *b)
{
	uint64_t length;

	if (read(b->fd, &length, sizeof(length)) != sizeof(length))
		return 0;
	b->end = length - sizeof(length);
	if (read(b->fd, b->data, b->end) != (ssize_t)b->end)
		die("read");
	return 1;
}

// The file belongs to the namespace that it was opened in: it is closed with the restore.
static int next_id = -1;

static void want_id(int id)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d\n", id);

	if (next_id < 0)
		next_id = open_in("/proc/sys/kernel", "msg_next_id", O_WRONLY);
	if (pwrite(next_id, text, len, 0) != len)
		die("msg_next_id");
}

// restore_queue makes the queue; msg_next_id is written only where the kernel's own next id, the
// one after the last queue's, is not the wanted one. Until restore_attributes it is closed to
// others: a restore that can be used before it is complete is not the same work. That costs each
// msgsnd the look for CAP_IPC_OWNER (ipc/util.c, ipcperms).
static void restore_queue(const struct head *h, int natural)
{
	int id;

	if (h->id != natural)
		want_id(h->id);
	id = msgget(h->key, CLOSED | IPC_CREAT | IPC_EXCL);
	if (id != h->id)
		die("msgget");
}

static void restore_attributes(const struct head *h)
{
	struct msqid_ds ds = { .msg_qbytes = h->qbytes };

	ds.msg_perm.uid = h->uid;
	ds.msg_perm.gid = h->gid;
	ds.msg_perm.mode = h->mode;
	if (msgctl(h->id, IPC_SET, &ds) < 0)
		die("msgctl IPC_SET");
}

static size_t restore_message(int id, const char *at)
{
	size_t size = *(const uint64_t *)at;

	if (msgsnd(id, at + sizeof(uint64_t), size, IPC_NOWAIT) < 0)
		die("msgsnd");
	return message_room(size);
}

static void restore_blocks(struct block *b)
{
	struct head h = { .id = -1 };
	uint32_t left = 0;

	while (block_read(b)) {
		for (size_t at = 0; at < b->end;) {
			if (left > 0) {
				at += restore_message(h.id, b->data + at);
				left--;
			} else {
				int natural = h.id + 1;

				memcpy(&h, b->data + at, sizeof(h));
				at += sizeof(h);
				restore_queue(&h, natural);
				left = h.qnum;
			}
			if (left == 0)
				restore_attributes(&h);
		}
	}
}

static void restore(const char *dir, const struct plan *plan)
{
	struct block b = block_new(open_in(dir, "floor", O_RDONLY), plan);
	struct limits l;

	if (read(b.fd, &l, sizeof(l)) != sizeof(l))
		die("read");
	sysctl_write("msgmax", l.msgmax);
	sysctl_write("msgmnb", l.msgmnb);
	sysctl_write("msgmni", l.msgmni);
	restore_blocks(&b);
	if (next_id >= 0)
		close(next_id);
	next_id = -1;
	block_free(&b);
}

int main(int argc, char **argv)
{
	return job_main(argc, argv, &(struct job){ copy, restore });
}
