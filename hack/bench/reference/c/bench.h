// What the benchmark's programs have in common.
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/msg.h>

// The kernel's struct msgbuf up to the payload (include/uapi/linux/msg.h).
#define MTYPE_SIZE sizeof(long)

// struct plan is a shape as the harness writes it (shapes.go), mapped read-only:
// this head, then counts[queues], then sizes[messages] in queue order.
struct plan {
	uint32_t msgmax, msgmnb, queues, messages;
	uint32_t numbers[];
};

static inline const uint32_t *plan_counts(const struct plan *p)
{
	return p->numbers;
}

static inline const uint32_t *plan_sizes(const struct plan *p)
{
	return p->numbers + p->queues;
}

// die ends the program with status 1 and a line on stderr: the object, and errno's text.
void die(const char *what) __attribute__((noreturn));

const struct plan *plan_open(const char *path);

// nanoseconds is CLOCK_MONOTONIC.
uint64_t nanoseconds(void);

// open_in opens a file of the directory with open(2)'s flags, mode 0600.
int open_in(const char *dir, const char *name, int flags);

void write_all(int fd, const void *data, size_t size);

// queues_remove removes every queue of the calling thread's namespace.
void queues_remove(void);

// sysctl_write sets a file of /proc/sys/kernel that holds one number.
void sysctl_write(const char *name, unsigned long value);

// struct job is one way to do the two operations; the directory holds its own format.
struct job {
	void (*copy)(const char *dir, const struct plan *plan);
	void (*restore)(const char *dir, const struct plan *plan);
};

// job_main runs `program copy|restore NAMESPACE DIR PLAN TIMES`: it runs the job so many times and
// prints the nanoseconds of the fastest, the thread that enters the namespace included. It copies out of the namespace, into the
// same files again and again. Only its last restore goes into the namespace, those before into a
// fresh one each.
int job_main(int argc, char **argv, const struct job *job);

#endif
