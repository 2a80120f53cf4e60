// Keeps an IPC namespace alive for the harness, which starts it in a fresh one:
//
//	holder PLAN fill     makes the plan's queues and waits for the next second to begin, after
//	                     which their time stamps are in the past
//	holder PLAN empty    leaves the namespace as it is
//
// It prints "ready", then obeys lines on stdin: "verify" compares the namespace with the plan,
// consuming the messages, and prints "equal" or what differs. At end of file it removes every
// queue and exits: what is left for the kernel to tear down afterwards (a worker does it, at a
// time of its own, on a CPU that the next measurement needs) is an empty namespace.
#include "bench.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEY_BASE 0x1c0000
#define MODE 0640

// payload fills a message of the plan: nothing repeats, so that order and bytes can be compared.
static void payload(struct msgbuf *m, unsigned message, size_t size)
{
	uint64_t x = (message + 1) * 0x9e3779b97f4a7c15ull;
	uint64_t *words = (uint64_t *)((char *)m + MTYPE_SIZE);

	m->mtype = 1 + message % 7;
	for (size_t i = 0; i * 8 < size; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		words[i] = x;
	}
}

static struct msgbuf *buffer(const struct plan *plan)
{
	struct msgbuf *m = malloc(MTYPE_SIZE + plan->msgmax + 8);

	if (!m)
		die("malloc");
	return m;
}

static void fill(const struct plan *plan)
{
	const uint32_t *size = plan_sizes(plan);
	struct msgbuf *m = buffer(plan);
	unsigned message = 0;

	sysctl_write("msgmax", plan->msgmax);
	sysctl_write("msgmnb", plan->msgmnb);
	for (unsigned q = 0; q < plan->queues; q++) {
		int id = msgget(KEY_BASE + q, MODE | IPC_CREAT | IPC_EXCL);

		if (id < 0)
			die("msgget");
		for (unsigned n = 0; n < plan_counts(plan)[q]; n++, message++) {
			payload(m, message, size[message]);
			if (msgsnd(id, m, size[message], IPC_NOWAIT) < 0)
				die("msgsnd");
		}
	}
	free(m);
}

// The kernel stamps queues by this clock.
static time_t second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return now.tv_sec;
}

static void next_second(void)
{
	time_t begin = second();

	while (second() == begin)
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static const char *verify_messages(int id, struct msgbuf *want, struct msgbuf *got, size_t max,
				   const uint32_t *size, unsigned first, unsigned count)
{
	for (unsigned n = first; n < first + count; n++) {
		payload(want, n, size[n]);
		if (msgrcv(id, got, max, 0, IPC_NOWAIT) != (ssize_t)size[n])
			return "size of a message";
		if (memcmp(want, got, MTYPE_SIZE + size[n]) != 0)
			return "content or order of the messages";
	}
	return NULL;
}

static const char *verify_queue(unsigned q, int id, const struct plan *plan)
{
	struct msqid_ds ds;

	if (id != (int)q)
		return "id of a queue";
	if (msgctl(id, IPC_STAT, &ds) < 0)
		return "access to a queue";
	if ((ds.msg_perm.mode & 0777) != MODE || ds.msg_perm.uid != getuid())
		return "mode or owner of a queue";
	if (ds.msg_qnum != plan_counts(plan)[q] || ds.msg_qbytes != plan->msgmnb)
		return "qnum or qbytes of a queue";
	return NULL;
}

static const char *verify(const struct plan *plan)
{
	struct msgbuf *want = buffer(plan), *got = buffer(plan);
	const char *wrong = NULL;
	unsigned message = 0;

	for (unsigned q = 0; q < plan->queues && !wrong; q++) {
		unsigned count = plan_counts(plan)[q];
		int id = msgget(KEY_BASE + q, 0);

		wrong = verify_queue(q, id, plan);
		if (!wrong)
			wrong = verify_messages(id, want, got, plan->msgmax, plan_sizes(plan), message, count);
		message += count;
	}
	free(want);
	free(got);
	return wrong;
}

int main(int argc, char **argv)
{
	const struct plan *plan;
	char line[32];

	if (argc != 3)
		return 2;
	plan = plan_open(argv[1]);
	if (strcmp(argv[2], "fill") == 0) {
		fill(plan);
		next_second();
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		const char *wrong = verify(plan);

		puts(wrong ? wrong : "equal");
	}
	queues_remove();
	return 0;
}
