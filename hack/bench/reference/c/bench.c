#include "bench.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

const struct plan *plan_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *map;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	// Populated: what the plan costs must not show in the job's time.
	map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (map == MAP_FAILED)
		die(path);
	close(fd);
	return map;
}

static int namespace_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(path);
	return fd;
}

static void enter(int namespace)
{
	if (setns(namespace, CLONE_NEWIPC) < 0)
		die("setns");
}

uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

int open_in(const char *dir, const char *name, int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

void write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size > 0) {
		ssize_t n = write(fd, at, size);

		if (n < 0)
			die("write");
		at += n;
		size -= n;
	}
}

void queues_remove(void)
{
	struct msginfo info;
	int last = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);

	for (int i = 0; i <= last; i++) {
		struct msqid_ds ds;
		int id = msgctl(i, MSG_STAT, &ds);

		if (id >= 0)
			msgctl(id, IPC_RMID, NULL);
	}
	// The kernel frees the queues themselves after an RCU grace period: let it pass here.
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

void sysctl_write(const char *name, unsigned long value)
{
	char text[32];
	int fd = open_in("/proc/sys/kernel", name, O_WRONLY);
	int len = snprintf(text, sizeof(text), "%lu\n", value);

	if (write(fd, text, len) != len)
		die(name);
	close(fd);
}

// struct visit is one operation in a namespace, on a thread that enters it and ends with it: a
// program that does not live there, and stays where it is, has no other way.
struct visit {
	void (*work)(const char *dir, const struct plan *plan);
	int namespace;
	const char *dir;
	const struct plan *plan;
};

static void *visit(void *arg)
{
	const struct visit *v = arg;

	enter(v->namespace);
	v->work(v->dir, v->plan);
	return NULL;
}

static void on_thread(void *(*begin)(void *), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, begin, arg);
	if (errno)
		die("pthread_create");
	errno = pthread_join(thread, NULL);
	if (errno)
		die("pthread_join");
}

static uint64_t timed(struct visit v)
{
	uint64_t begin = nanoseconds();

	on_thread(visit, &v);
	return nanoseconds() - begin;
}

static void *namespace_make(void *arg)
{
	if (unshare(CLONE_NEWIPC) < 0)
		die("unshare");
	*(int *)arg = namespace_open("/proc/thread-self/ns/ipc");
	return NULL;
}

// A namespace that nothing holds is torn down by a worker, beside the next restore: what is left
// behind is empty, and open until the process ends.
static void leave_behind(const char *dir, const struct plan *plan)
{
	(void)dir, (void)plan;
	queues_remove();
}

// To free the pages of the copy before is no part of a copy.
static void clear_dir(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		die(path);
	while ((entry = readdir(dir)))
		if (entry->d_type == DT_REG && unlinkat(dirfd(dir), entry->d_name, 0) < 0)
			die(entry->d_name);
	closedir(dir);
}

static uint64_t copy_times(const struct job *job, char **argv, const struct plan *plan, int times)
{
	struct visit v = { job->copy, namespace_open(argv[2]), argv[3], plan };
	uint64_t best = UINT64_MAX;

	while (times-- > 0) {
		uint64_t once;

		clear_dir(argv[3]);
		once = timed(v);
		best = once < best ? once : best;
	}
	return best;
}

static uint64_t restore_times(const struct job *job, char **argv, const struct plan *plan, int times)
{
	struct visit v = { job->restore, -1, argv[3], plan };
	uint64_t best = UINT64_MAX, once;

	for (; times > 1; times--) {
		struct visit after = { .work = leave_behind };

		on_thread(namespace_make, &v.namespace);
		once = timed(v);
		best = once < best ? once : best;
		after.namespace = v.namespace;
		on_thread(visit, &after);
	}
	v.namespace = namespace_open(argv[2]);
	once = timed(v);
	return once < best ? once : best;
}

int job_main(int argc, char **argv, const struct job *job)
{
	const struct plan *plan;
	uint64_t best;

	if (argc != 6 || atoi(argv[5]) < 1) {
		fprintf(stderr, "usage: %s copy|restore NAMESPACE DIR PLAN TIMES\n", argv[0]);
		return 2;
	}
	plan = plan_open(argv[4]);
	best = (strcmp(argv[1], "copy") == 0 ? copy_times : restore_times)(job, argv, plan, atoi(argv[5]));
	printf("%llu\n", (unsigned long long)best);
	return 0;
}
