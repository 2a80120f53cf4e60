/* Prints each signal it is given, one line "NUMBER CODE VALUE", and counts on
 * meanwhile in the file named by its argument. Go programs cannot tell: their
 * runtime takes the signals and drops what came with them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void say(int number, siginfo_t *info, void *context)
{
	char line[64];
	int n = snprintf(line, sizeof line, "%d %d %d\n", number, info->si_code, info->si_value.sival_int);

	(void)context;
	if (write(1, line, n) != n)
		_exit(1);
}

int main(int argc, char **argv)
{
	static const int caught[] = { SIGUSR1, SIGTERM, SIGCONT };
	struct sigaction action;
	volatile unsigned long *counter;
	int fd = open(argv[argc - 1], O_RDWR);

	counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counter == MAP_FAILED)
		return 1;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = say;
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	sigfillset(&action.sa_mask);
	for (unsigned i = 0; i < sizeof caught / sizeof *caught; i++)
		sigaction(caught[i], &action, NULL);
	sigaction(SIGRTMIN, &action, NULL);
	alarm(120);
	for (;;)
		__sync_fetch_and_add(counter, 1);
}
