#include "bench.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

void enter(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWIPC) < 0)
		die(path);
	close(fd);
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

void sysctl_write(const char *name, unsigned long value)
{
	char text[32];
	int fd = open_in("/proc/sys/kernel", name, O_WRONLY);
	int len = snprintf(text, sizeof(text), "%lu\n", value);

	if (write(fd, text, len) != len)
		die(name);
	close(fd);
}

int job_main(int argc, char **argv, const struct job *job)
{
	const struct plan *plan;
	uint64_t begin, end;

	if (argc != 5) {
		fprintf(stderr, "usage: %s copy|restore NAMESPACE DIR PLAN\n", argv[0]);
		return 2;
	}
	plan = plan_open(argv[4]);
	enter(argv[2]);
	begin = nanoseconds();
	(strcmp(argv[1], "copy") == 0 ? job->copy : job->restore)(argv[3], plan);
	end = nanoseconds();
	printf("%llu\n", (unsigned long long)(end - begin));
	return 0;
}
