/* Exits with 0 if the processor's breakpoints work here: a traced child stops at one, as criu has
 * its tasks stop when it lets go of them. Some virtual machines take the registers and never stop. */
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
static void __attribute__((noinline)) reached(void) { __asm__ volatile("nop"); }

static int set(pid_t child, size_t n, unsigned long value)
{
	return ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg) + n * sizeof(long), value);
}

int main(void)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		reached();
		_exit(1);
	}
	/* Of DR7 the first bit alone: stop the task where it executes what DR0 points to. */
	if (child < 0 || waitpid(child, &status, 0) < 0 || set(child, 0, (unsigned long)reached) || set(child, 7, 1))
		return 1;
	ptrace(PTRACE_CONT, child, 0, 0);
	if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
		return 1;
	kill(child, SIGKILL);
	return WSTOPSIG(status) != SIGTRAP;
}
#else
int main(void) { return 0; } /* not seen elsewhere */
#endif
