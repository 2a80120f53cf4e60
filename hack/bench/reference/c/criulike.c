// Copies and makes a namespace's queues the way CRIU does (read in criu/ipc_ns.c, sysctl.c,
// protobuf.c, bfd.c of CRIU 4.x; nothing is copied from there): one thread; the limits one
// sysctl file at a time; MSG_STAT over the index range; for each queue msgmax read anew and a
// buffer of that size; a protobuf record and a padded payload for each message, through a buffer
// of one page. On restore msg_next_id written for each queue, IPC_STAT and IPC_SET, then the
// messages one by one.
//
// It is faster than CRIU where they differ: it keeps no log (CRIU has a line for each queue and
// message) and packs its records without protobuf-c's descriptors. And it restores messages
// over 8192 bytes, which CRIU refuses, for there would be no time to compare otherwise.
#include "bench.h"
#include "image.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VAR_FILE "ipcns-var-1.img"
#define MSG_FILE "ipcns-msg-1.img"

// The fields of CRIU's ipc_var_entry (images/ipc-var.proto). The last three read -1 when unset
// and are then left out.
static const struct {
	unsigned field, count;
	const char *path;
} vars[] = {
	{ 1, 4, "sys/kernel/sem" },
	{ 2, 1, "sys/kernel/msgmax" },
	{ 3, 1, "sys/kernel/msgmnb" },
	{ 5, 1, "sys/kernel/auto_msgmni" },
	{ 4, 1, "sys/kernel/msgmni" },
	{ 6, 1, "sys/kernel/shmmax" },
	{ 7, 1, "sys/kernel/shmall" },
	{ 8, 1, "sys/kernel/shmmni" },
	{ 9, 1, "sys/kernel/shm_rmid_forced" },
	{ 10, 1, "sys/fs/mqueue/queues_max" },
	{ 11, 1, "sys/fs/mqueue/msg_max" },
	{ 12, 1, "sys/fs/mqueue/msgsize_max" },
	{ 13, 1, "sys/fs/mqueue/msg_default" },
	{ 14, 1, "sys/fs/mqueue/msgsize_default" },
	{ 15, 1, "sys/kernel/msg_next_id" },
	{ 16, 1, "sys/kernel/sem_next_id" },
	{ 17, 1, "sys/kernel/shm_next_id" },
};

#define VARS (sizeof(vars) / sizeof(vars[0]))
#define VAR_COUNT_MAX 4

static int proc;

static void sysctl_get(const char *path, uint64_t *values, unsigned count)
{
	char text[1024] = "", *at = text;
	int fd = openat(proc, path, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		die(path);
	close(fd);
	for (unsigned i = 0; i < count; i++)
		values[i] = strtoull(at, &at, 10);
}

static void sysctl_set(const char *path, const uint64_t *values, unsigned count)
{
	char text[128];
	int len = 0, fd = openat(proc, path, O_RDWR);

	for (unsigned i = 0; i < count; i++)
		len += snprintf(text + len, sizeof(text) - len, "%llu ", (unsigned long long)values[i]);
	text[len - 1] = '\n';
	if (fd < 0 || write(fd, text, len) != len)
		die(path);
	close(fd);
}

static void copy_vars(const char *dir)
{
	struct record r = { 0 };
	struct image img;

	for (unsigned i = 0; i < VARS; i++) {
		uint64_t values[VAR_COUNT_MAX];

		sysctl_get(vars[i].path, values, vars[i].count);
		if (vars[i].field >= 15 && values[0] == UINT64_MAX)
			continue;
		for (unsigned n = 0; n < vars[i].count; n++)
			record_put(&r, vars[i].field, values[n]);
	}
	image_create(&img, dir, VAR_FILE, MAGIC_VAR);
	record_write(&img, &r);
	image_close(&img);
}

static void copy_message(struct image *img, int id, struct msgbuf *m, size_t max, unsigned n)
{
	struct record r = { 0 };
	ssize_t size = msgrcv(id, m, max, n, IPC_NOWAIT | MSG_COPY);
	size_t padded = (size + 7) & ~(size_t)7;

	if (size < 0)
		die("msgrcv");
	record_put(&r, 1, m->mtype);
	record_put(&r, 2, size);
	record_write(img, &r);
	memset(m->mtext + size, 0, padded - size);
	image_write(img, m->mtext, padded);
}

static void copy_messages(struct image *img, int id, unsigned count)
{
	uint64_t msgmax;
	struct msgbuf *m;

	sysctl_get("sys/kernel/msgmax", &msgmax, 1);
	msgmax += sizeof(*m);
	m = malloc((msgmax + 7) & ~(size_t)7);
	if (!m)
		die("malloc");
	for (unsigned n = 0; n < count; n++)
		copy_message(img, id, m, msgmax, n);
	free(m);
}

static void copy_queue(struct image *img, int id, const struct msqid_ds *ds)
{
	const struct ipc_perm *p = &ds->msg_perm;
	struct record desc = { 0 }, r = { 0 };

	record_put(&desc, 1, (uint32_t)p->__key);
	record_put(&desc, 2, p->uid);
	record_put(&desc, 3, p->gid);
	record_put(&desc, 4, p->cuid);
	record_put(&desc, 5, p->cgid);
	record_put(&desc, 6, p->mode);
	record_put(&desc, 7, id);
	record_put_record(&r, 1, &desc);
	record_put(&r, 2, ds->msg_qbytes);
	record_put(&r, 3, ds->msg_qnum);
	record_write(img, &r);
	copy_messages(img, id, ds->msg_qnum);
}

static void copy(const char *dir, const struct plan *plan)
{
	struct msginfo info;
	struct image img;
	int last;

	(void)plan;
	copy_vars(dir);
	last = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);
	image_create(&img, dir, MSG_FILE, MAGIC_MSG);
	for (int i = 0; i <= last; i++) {
		struct msqid_ds ds;
		int id = msgctl(i, MSG_STAT, &ds);

		if (id < 0 && errno == EINVAL)
			continue;
		if (id < 0)
			die("msgctl MSG_STAT");
		copy_queue(&img, id, &ds);
	}
	image_close(&img);
}

static void restore_vars(const char *dir)
{
	uint64_t values[VARS][VAR_COUNT_MAX], value;
	unsigned seen[VARS] = { 0 }, field;
	struct image img;
	struct record r;

	image_open(&img, dir, VAR_FILE, MAGIC_VAR);
	record_read(&img, &r);
	image_close(&img);
	while ((field = record_next(&r, &value, NULL)) != 0)
		for (unsigned i = 0; i < VARS; i++)
			if (vars[i].field == field && seen[i] < vars[i].count)
				values[i][seen[i]++] = value;
	for (unsigned i = 0; i < VARS; i++)
		if (seen[i] > 0)
			sysctl_set(vars[i].path, values[i], seen[i]);
}

static void restore_message(struct image *img, int id, struct msgbuf *m)
{
	uint64_t size = 0, value;
	struct record r;
	unsigned field;

	if (!record_read(img, &r))
		die("image ends within a queue");
	while ((field = record_next(&r, &value, NULL)) != 0) {
		if (field == 1)
			m->mtype = value;
		if (field == 2)
			size = value;
	}
	image_read(img, m->mtext, (size + 7) & ~(uint64_t)7);
	if (msgsnd(id, m, size, IPC_NOWAIT) < 0)
		die("msgsnd");
}

struct queue {
	uint64_t desc[8]; // by field number
	uint64_t qnum;
};

static int queue_read(struct image *img, struct queue *q)
{
	struct record r, desc = { 0 };
	uint64_t value;
	unsigned field;

	if (!record_read(img, &r))
		return 0;
	while ((field = record_next(&r, &value, &desc)) != 0)
		if (field == 3)
			q->qnum = value;
	while ((field = record_next(&desc, &value, NULL)) != 0)
		q->desc[field & 7] = value;
	return 1;
}

static void restore_queue(const struct queue *q)
{
	struct msqid_ds ds;
	int id;

	sysctl_set("sys/kernel/msg_next_id", &q->desc[7], 1);
	id = msgget(q->desc[1], q->desc[6] | IPC_CREAT | IPC_EXCL);
	if (id != (int)q->desc[7])
		die("msgget");
	if (msgctl(id, IPC_STAT, &ds) < 0)
		die("msgctl IPC_STAT");
	ds.msg_perm.uid = q->desc[2];
	ds.msg_perm.gid = q->desc[3];
	if (msgctl(id, IPC_SET, &ds) < 0)
		die("msgctl IPC_SET");
}

static void restore(const char *dir, const struct plan *plan)
{
	struct msgbuf *m = malloc(sizeof(*m) + plan->msgmax + 7);
	struct image img;
	struct queue q;

	if (!m)
		die("malloc");
	restore_vars(dir);
	image_open(&img, dir, MSG_FILE, MAGIC_MSG);
	while (queue_read(&img, &q)) {
		restore_queue(&q);
		for (uint64_t n = 0; n < q.qnum; n++)
			restore_message(&img, q.desc[7], m);
	}
	image_close(&img);
	free(m);
}

int main(int argc, char **argv)
{
	proc = open("/proc", O_RDONLY | O_DIRECTORY);
	if (proc < 0)
		die("/proc");
	return job_main(argc, argv, &(struct job){ copy, restore });
}
