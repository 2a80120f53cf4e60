// Runs a program and tells the harness what it cost: `launch PROGRAM ARG...` writes to
// descriptor 3 the nanoseconds from before its fork to its end and its peak resident memory in
// KiB (getrusage(2), the larger of its own and of those it waited for), and exits as it did.
//
// The harness cannot ask for that itself: a child's peak begins with that of the process that
// forked it (fs/exec.c, exec_mmap), and this one is small.
#include "bench.h"
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	struct rusage usage;
	uint64_t begin, end;
	int status, error;
	pid_t pid;

	if (argc < 2)
		return 2;
	fcntl(3, F_SETFD, FD_CLOEXEC);
	begin = nanoseconds();
	error = posix_spawn(&pid, argv[1], NULL, NULL, argv + 1, environ);
	if (error != 0) {
		errno = error;
		die(argv[1]);
	}
	if (wait4(pid, &status, 0, &usage) != pid)
		die("wait4");
	end = nanoseconds();
	dprintf(3, "%llu %ld\n", (unsigned long long)(end - begin), usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
